"""Let convolutions run as FFTConv: the same inputs and attributes, in graphscale's domain."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

DOMAIN = "graphscale"
_VERSION = 1
_FIRST_WITH_FUNCTIONS = 8  # IR version; the operator's body is a function in the model


def replace_convolutions(model: ir.Model, nodes: Iterable[ir.Node]) -> None:
    """Turn Conv nodes of `model` into FFTConv nodes, in place."""
    for node in nodes:
        node.domain = DOMAIN
        node.op_type = "FFTConv"
        node.version = None
        model.graph.opset_imports[DOMAIN] = _VERSION
        model.ir_version = max(model.ir_version, _FIRST_WITH_FUNCTIONS)
