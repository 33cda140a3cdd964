"""Put the functions that hold convolutions into the main graph, where each call has its sizes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from graphscale.passes.accelerate.find_convolutions import is_convolution
from graphscale.passes.accelerate.rewrite_convolutions import DOMAIN


def inline_convolutions(model: ir.Model) -> None:
    """Inline, in place, the calls of functions that hold a convolution or call such a function.

    graphscale's own operators, whose function bodies hold convolutions too, stay nodes.
    """
    others = [each for each in model.functions.values() if each.domain != DOMAIN]
    holding: set[ir.OperatorIdentifier] = set()
    while True:
        found = {
            each.identifier()
            for each in others
            if any(
                is_convolution(node) or node.op_identifier() in holding for node in each.all_nodes()
            )
        }
        if found == holding:
            break
        holding = found
    if holding:
        InlinePass(criteria=lambda function: function.identifier() in holding)(model)
