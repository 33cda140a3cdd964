"""Turn Conv nodes into FFTConv and back: same inputs and attributes, in graphscale's domain."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.core.operator_definition import DOMAIN, VERSION
from graphscale.passes.accelerate.find_convolutions import FIRST_WITH_OVERRIDES
from graphscale.passes.accelerate.fuse_activations import FuseActivations, SplitActivations
from graphscale.passes.graph.rewrite_result import RewriteResult

_FIRST_WITH_FUNCTIONS = 8  # IR version; the operator's body is a function in the model


def algorithm_of(node: ir.Node) -> str | None:
    """The algorithm of an FFTConv node, None for a Conv."""
    return node.attributes.get_string("algorithm", "auto") if node.domain == DOMAIN else None


class RewriteConvolutions(ir.passes.InPlacePass):
    """Turn nodes into FFTConv with an algorithm, or, for None, into Conv; the result names them.

    A Relu or Clip behind a node is fused into an FFTConv, and split off from a Conv.

    Args:
        algorithms: Conv and FFTConv nodes of the model that the pass is called with, each with its
            algorithm.
    """

    def __init__(self, algorithms: Mapping[ir.Node, str | None]) -> None:
        super().__init__()
        self._algorithms = algorithms

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrite in place."""
        fft = [node for node, algorithm in self._algorithms.items() if algorithm is not None]
        for node, algorithm in self._algorithms.items():
            node.attributes.pop("algorithm", None)
            node.version = None
            node.domain, node.op_type = ("", "Conv") if algorithm is None else (DOMAIN, "FFTConv")
            if algorithm is None and node.inputs[-1] is None:
                node.resize_inputs(
                    len(node.inputs) - 1
                )  # onnxruntime optimizes no Conv with an empty bias
            if algorithm not in (None, "auto"):
                node.attributes["algorithm"] = ir.AttrString("algorithm", algorithm)
        SplitActivations([node for node in self._algorithms if node.domain != DOMAIN])(model)
        FuseActivations(fft)(model)
        if fft:
            model.graph.opset_imports[DOMAIN] = VERSION
            _allow_functions(model)
        return RewriteResult.of(model, [node_name(node) for node in self._algorithms])


def _allow_functions(model: ir.Model) -> None:
    if model.ir_version < FIRST_WITH_OVERRIDES:  # what was constant stays so
        inputs = model.graph.inputs
        inputs[:] = [value for value in inputs if not value.is_initializer()]
    model.ir_version = max(model.ir_version, _FIRST_WITH_FUNCTIONS)
