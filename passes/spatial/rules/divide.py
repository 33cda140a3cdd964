"""Div and Mod, which may split the place of a flattened map's best pixel into row and column.

A detector takes the best of H·W places, and divides by the width for the row, or takes the
remainder for the column. Where the exporter wrote the width as a constant, it follows the map.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import Dim, moves, target_size
from graphscale.passes.spatial.registry import register
from graphscale.passes.spatial.rewriter import Rewriter
from graphscale.passes.spatial.rules.elementwise import Broadcast

# What places pass through on their way to the division: they stay places of the same map.
_PASSED = {
    *(
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
    ),
    "Unsqueeze",
}


@register("Div", "Mod")
class _Divide(Broadcast):
    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        divisor = rewriter.analysis.inferred.constants.get(node.inputs[1])
        if divisor is None or divisor.size != 1:
            return
        inner = _split_off(_map_of(node.inputs[0], rewriter.analysis), divisor.item())
        if moves(inner):
            rewriter.constants.demand(node, 1, np.asarray(rewriter.size(inner)))


def _map_of(places: ir.Value, analysis: SpatialAnalysis) -> Dim:
    """The dimension among whose places ArgMax or TopK found these; () for other numbers."""
    value = places
    while (node := value.producer()) is not None and node.op_type in _PASSED:
        value = node.inputs[0]
    best = node is not None and node.op_type in ("ArgMax", "ArgMin")
    if best or (node is not None and node.op_type == "TopK" and value is node.outputs[1]):
        axis = node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0)
        return analysis.of(node.inputs[0])[axis]
    return ()


def _split_off(dim: Dim, size: float) -> Dim:
    """The last factors of a flattened dimension, of `size` places together; () where none are."""
    for first in range(len(dim)):
        if target_size(dim[first:]) == size:
            return dim[first:]
    return ()
