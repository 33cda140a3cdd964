"""LSTM, GRU and RNN.

Text recognition reads a map column by column: its width is the sequence, and a flattened C·H the
features of each step.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from graphscale.passes.graph.weight_source import shape_as_read, weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import fixed, moves
from graphscale.passes.spatial.registry import MatrixProductRule, ShapeOf, register


@register("GRU", "LSTM", "RNN")
class _Recurrent(MatrixProductRule):
    """Each gate is a sum over the features, by input 1, and over the hidden state, by input 2."""

    weight_inputs = (1, 2)
    bias_input = 3

    def weight_input(self, node: ir.Node) -> int | None:
        return 1 if 1 in self._held(node) else None

    def trained_inputs(self, node: ir.Node) -> list[int]:
        return self._held(node)

    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        other = node.inputs[3 - index]
        held = weight_source(other) is not None
        return shape[2] + (shape_as_read(other)[2] if held else 0)

    def multiplications(self, node: ir.Node, shape: ShapeOf) -> int:
        map_shape, hidden = shape(node.inputs[0]), shape(node.inputs[2])
        steps = map_shape[1 if node.attributes.get_int("layout", 0) else 0]
        return steps * prod(hidden[:2]) * (map_shape[2] + hidden[2])

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims, weight = analyzer.of(node.inputs[0]), node.inputs[1]
        if moves(dims[2]):
            # The input weight, directions × gates × features, sums over the map's rows.
            if weight_source(weight) is None:
                raise unfollowed(node, "multiplies flattened maps by a computed weight")
            analyzer.add_weight(node, weight, (*analyzer.of(weight)[:2], dims[2]), summed=True)
        # X is steps × batch × features, Y is steps × directions × batch × hidden; with layout 1,
        # X is batch × steps × features, Y is batch × steps × directions × hidden.
        second = 1 if node.attributes.get_int("layout", 0) else 2
        for index, output in enumerate(node.outputs):
            if not output.name:
                continue
            sizes = [fixed(size) for size in analyzer.shape(output)]
            if index == 0:  # every step's hidden state; the other outputs are the last step's
                sizes[0], sizes[second] = dims[:2]
            analyzer.dims[output] = tuple(sizes)
