"""Turn quantised weights into floating-point initializers, which can be trained and resized.

A quantised model holds a weight as integers behind a DequantizeLinear, which multiplies them by one
scale, or by one per channel. Neither a gradient step nor an interpolated kernel is a whole number
of such a scale. The floating-point numbers take the place of the DequantizeLinear, and its name.
QuantizeLinear and DequantizeLinear nodes on activations stay: their scales hold for the network
that is trained or rescaled, too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import register_initializer
from graphscale.passes.graph.evaluate_node import evaluate_node
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import tensor_of, weight_source


class DequantizeWeights(ir.passes.InPlacePass):
    """Dequantise all constants; the result names the new initializers.

    Raises:
        GraphScaleError: a weight cannot be dequantised; names the node.
    """

    def call(self, model: ir.Model) -> RewriteResult:
        """Replace nodes in place; integers, scales and zero points that nothing reads go, too."""
        names: FreeNames | None = None
        folded = []
        for node in model.graph:
            if not _dequantizes_constant(node):
                continue
            names = names or FreeNames.for_values(model)
            numbers = [None if each is None else _numbers(each) for each in node.inputs]
            (array,) = evaluate_node(model, node, numbers)
            (value,) = node.outputs
            weight = register_initializer(model, names.hand_over(value, "_quantized"), array)
            value.replace_all_uses_with(weight, replace_graph_outputs=True)
            read = [each for each in node.inputs if each is not None]
            model.graph.remove(node, safe=True)
            for each in read:
                _remove_unread(model.graph, each)
            folded.append(weight.name)
        return RewriteResult.of(model, folded)


def _dequantizes_constant(node: ir.Node) -> bool:
    if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return False
    return all(each is None or weight_source(each) is each for each in node.inputs)


def _numbers(value: ir.Value) -> np.ndarray:
    return tensor_of(value).numpy()


def _remove_unread(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a constant that nothing reads any more."""
    if value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    producer = value.producer()
    if producer is not None:
        graph.remove(producer, safe=True)
    else:
        graph.initializers.pop(value.name, None)
