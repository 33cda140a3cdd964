"""Fuse a Relu or Clip into the FFTConv before it, or split it off again.

onnxruntime fuses activations into its own Conv, but not into operators that it does not know.
FFTConv clips its output to its attributes `minimum` and `maximum`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphscale.core.fft_conv_definition import FIRST_OPSET_WITH_BOUNDS, MAXIMUM, MINIMUM
from graphscale.core.node_names import node_name
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import tensor_of, weight_source

_UNBOUNDED = (MINIMUM, MAXIMUM)


def bounds_of(node: ir.Node) -> tuple[float, float]:
    """The bounds that an FFTConv node clips its output to."""
    attributes = node.attributes
    return attributes.get_float("minimum", MINIMUM), attributes.get_float("maximum", MAXIMUM)


class FuseActivations(ir.passes.InPlacePass):
    """Fuse into each FFTConv node the Relu or Clip that is the only reader of its output.

    The result names the nodes that were changed. Where the output has other readers, or is clipped
    already, the activation stays.

    Args:
        nodes: FFTConv nodes of the model that the pass is called with.
    """

    def __init__(self, nodes: Sequence[ir.Node]) -> None:
        super().__init__()
        self._nodes = nodes

    def call(self, model: ir.Model) -> RewriteResult:
        """Fuse in place."""
        fused = [node for node in self._nodes if _fuse(node)]
        return RewriteResult.of(model, [node_name(node) for node in fused])


class SplitActivations(ir.passes.InPlacePass):
    """Put a Relu or Clip behind nodes that clip their outputs: the inverse of FuseActivations.

    The result names the nodes.

    Args:
        nodes: Nodes with FFTConv's attributes, of the model that the pass is called with.
    """

    def __init__(self, nodes: Sequence[ir.Node]) -> None:
        super().__init__()
        self._nodes = nodes

    def call(self, model: ir.Model) -> RewriteResult:
        """Split in place."""
        split = [node for node in self._nodes if _split(node)]
        return RewriteResult.of(model, [node_name(node) for node in split])


def _fuse(node: ir.Node) -> bool:
    """Fuse one node; False where there is nothing to fuse."""
    output = node.outputs[0]
    readers = list(output.uses())
    if len(readers) != 1 or output.is_graph_output() or bounds_of(node) != _UNBOUNDED:
        return False
    if node.graph.opset_imports[""] < FIRST_OPSET_WITH_BOUNDS:
        return False
    activation = readers[0].node
    bounds = _bounds_of_activation(activation)
    if bounds is None or activation.graph is not node.graph:
        return False
    for name, bound, default in zip(("minimum", "maximum"), bounds, _UNBOUNDED, strict=True):
        if bound != default:
            node.attributes[name] = ir.AttrFloat32(name, bound)
    (result,), constants = activation.outputs, activation.inputs[1:]
    name, output.type, output.shape = result.name, result.type, result.shape
    result.replace_all_uses_with(output, replace_graph_outputs=True)
    activation.graph.remove(activation, safe=True)
    output.name = name
    for constant in constants:
        _drop_unused(constant)
    return True


def _split(node: ir.Node) -> bool:
    """Split one node; False where it does not clip."""
    bounds = bounds_of(node)
    for name in ("minimum", "maximum"):  # which a Conv does not have
        node.attributes.pop(name, None)
    if bounds == _UNBOUNDED:
        return False
    output, graph = node.outputs[0], node.graph
    result = ir.Value(name=output.name, type=output.type, shape=output.shape)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    output.name = f"{result.name}.sums"
    constants = []
    if bounds != (0.0, MAXIMUM):
        for name, bound in zip(("min", "max"), bounds, strict=True):
            tensor = ir.tensor(np.float32(bound), name=f"{result.name}.{name}")
            constants.append(ir.node("Constant", [], attributes={"value": tensor}))
            constants[-1].outputs[0].name = tensor.name
    kind = "Clip" if constants else "Relu"
    inputs = [output, *(each.outputs[0] for each in constants)]
    activation = ir.node(kind, inputs, outputs=[result], name=f"{result.name}.{kind}")
    graph.insert_after(node, [*constants, activation])
    return True


def _bounds_of_activation(node: ir.Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip; None of other nodes, and of bounds that are not constant."""
    if node.domain != "":
        return None
    if node.op_type == "Relu":
        return 0.0, MAXIMUM
    if node.op_type != "Clip":
        return None
    bounds = [
        node.attributes.get_float("min", MINIMUM),
        node.attributes.get_float("max", MAXIMUM),
    ]
    for index, value in enumerate(node.inputs[1:]):
        if value is None:
            continue
        held = weight_source(value)
        if held is None or held.is_graph_input():
            return None
        bounds[index] = float(tensor_of(held).numpy())
    return tuple(bounds) if bounds[0] <= bounds[1] else None


def _drop_unused(constant: ir.Value | None) -> None:
    """Remove a constant that nothing reads any more."""
    if constant is None or constant.uses() or constant.is_graph_output():
        return
    if constant.is_initializer():
        del constant.graph.initializers[constant.name]
    elif constant.producer() is not None:
        constant.graph.remove(constant.producer(), safe=True)
