"""The inputs of a model that its caller feeds."""

from __future__ import annotations

import onnx_ir as ir


def graph_inputs(model: ir.Model) -> list[ir.Value]:
    """The inputs that a caller must feed: those that no initializer fills."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]
