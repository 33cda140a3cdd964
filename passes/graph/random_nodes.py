"""Tell the nodes that draw other numbers each time they run.

What they draw is no constant, even where all their inputs are: to compute it once would freeze one
draw.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.weight_source import tensor_of, weight_source

_DRAWING = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    "RandomUniformLike",
}


def is_random(node: ir.Node) -> bool:
    """Whether `node` draws numbers; Dropout does in training mode, or where the mode may be it."""
    if node.domain != "":
        return False
    if node.op_type != "Dropout":
        return node.op_type in _DRAWING
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return False
    source = weight_source(mode)
    return source is None or bool(np.any(tensor_of(source).numpy()))
