"""Let convolutions run as FFTConv: the same inputs and attributes, in graphscale's domain."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphscale.passes.accelerate.find_convolutions import FIRST_WITH_OVERRIDES
from graphscale.passes.accelerate.fuse_activations import fuse_activation, split_activation

DOMAIN = "graphscale"
_VERSION = 1
_FIRST_WITH_FUNCTIONS = 8  # IR version; the operator's body is a function in the model


def plan_of(node: ir.Node) -> str | None:
    """The plan of an FFTConv node, None for a Conv."""
    return node.attributes.get_string("plan", "auto") if node.domain == DOMAIN else None


def plan_convolutions(model: ir.Model, plans: Mapping[ir.Node, str | None]) -> None:
    """Turn nodes of `model`, in place, into FFTConv with a plan, or into Conv where it is None.

    An FFTConv takes the Relu or Clip behind it along.
    """
    for node, plan in plans.items():
        node.attributes.pop("plan", None)
        node.version = None
        if plan is None:
            split_activation(node)
            node.domain, node.op_type = "", "Conv"
            continue
        node.domain, node.op_type = DOMAIN, "FFTConv"
        if plan != "auto":
            node.attributes["plan"] = ir.AttrString("plan", plan)
        fuse_activation(node)
        model.graph.opset_imports[DOMAIN] = _VERSION
        _allow_functions(model)


def _allow_functions(model: ir.Model) -> None:
    if model.ir_version < FIRST_WITH_OVERRIDES:  # what was constant stays so
        inputs = model.graph.inputs
        inputs[:] = [value for value in inputs if not value.is_initializer()]
    model.ir_version = max(model.ir_version, _FIRST_WITH_FUNCTIONS)
