"""Let convolutions run as FFTConv: the same inputs and attributes, in graphscale's domain."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

DOMAIN = "graphscale"
_VERSION = 1


def replace_convolutions(model: ir.Model, nodes: Iterable[ir.Node]) -> None:
    """Turn Conv nodes of `model` into FFTConv nodes, in place."""
    for node in nodes:
        node.domain = DOMAIN
        node.op_type = "FFTConv"
        node.version = None
        model.graph.opset_imports[DOMAIN] = _VERSION
