"""LSTM, GRU and RNN.

Text recognition reads a map column by column: its width is the sequence, and a flattened C·H the
features of each step.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import fixed, moves
from graphscale.passes.spatial.registry import Rule, register


@register("GRU", "LSTM", "RNN")
class _Recurrent(Rule):
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
