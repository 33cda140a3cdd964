"""Let convolutions run as FFTConv: the same inputs and attributes, in graphscale's domain."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphscale.passes.accelerate.find_convolutions import FIRST_WITH_OVERRIDES
from graphscale.passes.accelerate.fuse_activations import fuse_activation, split_activation

DOMAIN = "graphscale"
_VERSION = 1
_FIRST_WITH_FUNCTIONS = 8  # IR version; the operator's body is a function in the model


def algorithm_of(node: ir.Node) -> str | None:
    """The algorithm of an FFTConv node, None for a Conv."""
    return node.attributes.get_string("algorithm", "auto") if node.domain == DOMAIN else None


def rewrite_convolutions(model: ir.Model, algorithms: Mapping[ir.Node, str | None]) -> None:
    """Turn nodes of `model`, in place, into FFTConv with an algorithm, or, for None, into Conv.

    An FFTConv takes the Relu or Clip behind it along.
    """
    for node, algorithm in algorithms.items():
        node.attributes.pop("algorithm", None)
        node.version = None
        if algorithm is None:
            split_activation(node)
            node.domain, node.op_type = "", "Conv"
            continue
        node.domain, node.op_type = DOMAIN, "FFTConv"
        if algorithm != "auto":
            node.attributes["algorithm"] = ir.AttrString("algorithm", algorithm)
        fuse_activation(node)
        model.graph.opset_imports[DOMAIN] = _VERSION
        _allow_functions(model)


def _allow_functions(model: ir.Model) -> None:
    if model.ir_version < FIRST_WITH_OVERRIDES:  # what was constant stays so
        inputs = model.graph.inputs
        inputs[:] = [value for value in inputs if not value.is_initializer()]
    model.ir_version = max(model.ir_version, _FIRST_WITH_FUNCTIONS)
