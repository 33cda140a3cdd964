"""Infer every tensor's shape at a given input size, and every value that shapes alone decide.

In go a model and the shapes of its inputs, out come `InferredShapes`. ONNX's own per-node shape
inference does the work. Shape arithmetic (Shape, Gather, Concat, Mul …) is evaluated with ONNX's
reference implementation, so that Reshape, Resize, Slice and other operators with shape operands get
the numbers that they have at run time, however an exporter wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.evaluate_node import constant_of, evaluate_node, shape_of
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.infer_layer_shapes import infer_layer, is_layer
from graphscale.passes.graph.infer_sequences import infer_sequence
from graphscale.passes.graph.random_nodes import is_random

_MAX_CONSTANT = 1 << 16  # elements; larger values are weights, not shape arithmetic
_MAX_OPERAND = 1024  # elements of a constant that can matter for a shape: sizes, axes, pads

# Operators whose outputs have the shapes that another operator gives the same inputs.
_EQUIVALENTS = {
    ("com.microsoft", "FusedConv"): ("", "Conv"),
    ("com.microsoft", "Gelu"): ("", "Relu"),
    ("com.microsoft", "QuickGelu"): ("", "Relu"),
    ("com.microsoft", "FastGelu"): ("", "Relu"),
    # Defined by a function, for which ONNX's inference finds no shape.
    ("", "MeanVarianceNormalization"): ("", "Relu"),
}

_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv")
_POOLS = ("MaxPool", "AveragePool", "LpPool")


@dataclass(frozen=True)
class InferredShapes:
    """Shapes and known values of a model at one input size.

    Attributes:
        shapes: Shape of each tensor, all dimensions known.
        constants: Values that follow from shapes and constants alone, such as a Reshape's target.
        sequences: Shapes of the tensors in each sequence.
    """

    shapes: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    sequences: dict[ir.Value, list[tuple[int, ...]]] = field(default_factory=dict)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Shape of `value`."""
        return self.shapes[value]


def infer_shapes(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> InferredShapes:
    """Shapes of all tensors of the main graph when the inputs have `input_shapes`.

    Raises:
        GraphScaleError: an operator is unknown, or shapes do not fit together; names the node.
    """
    inference = ShapeInference(model, input_shapes)
    for node in model.graph:
        inference.visit(node)
    for value in model.graph.outputs:
        if value.producer() is None and value not in inference.found.shapes:
            raise GraphScaleError(
                f"nothing computes the output {value.name!r}; export the model again"
            )
    return inference.found


class ShapeInference:
    """Infers shapes node by node, for callers that change the graph on the way.

    Args:
        model: The model.
        input_shapes: The shape of each input that a caller feeds.

    Attributes:
        found: What is known after the nodes that were visited.
        types: ONNX type of each tensor; of a sequence, the type of its tensors.
    """

    def __init__(self, model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> None:
        self._model = model
        self.found = InferredShapes()
        self.types: dict[ir.Value, onnx.TypeProto] = {}
        for value in model.graph.initializers.values():
            self.add_initializer(value)
        for value in graph_inputs(model):
            if value.dtype is None or value.name not in input_shapes:
                raise GraphScaleError(f"input {value.name!r} has no known shape; give its shape")
            self.record(value, value.dtype.value, input_shapes[value.name])

    def add_initializer(self, value: ir.Value) -> None:
        """Take note of an initializer."""
        tensor = value.const_value
        if tensor is None:
            return
        self.record(value, tensor.dtype.value, tensor.shape.numpy())
        if tensor.size <= _MAX_CONSTANT and tensor.dtype != ir.DataType.STRING:
            self.found.constants[value] = tensor.numpy()

    def record(self, value: ir.Value, elem_type: int, shape: Sequence[int]) -> None:
        """Take note of a tensor's element type and shape."""
        self.types[value] = onnx.helper.make_tensor_type_proto(elem_type, shape)
        self.found.shapes[value] = tuple(shape)

    def visit(self, node: ir.Node) -> None:
        """Infer the outputs of `node`, whose inputs have been visited before.

        Raises:
            GraphScaleError: as `infer_shapes`.
        """
        constants = self.found.constants
        known = [value is None or value in constants for value in node.inputs]
        # Either the node's values are known, or only the shapes of its outputs are inferred.
        if node.op_type == "Constant" and node.domain == "":
            values = [constant_of(node)]
        elif node.op_type in ("Shape", "Size") and node.domain == "":
            values = [shape_of(node, self.found.shapes[node.inputs[0]])]
        elif all(known) and node.domain == "" and _small(node, self.found) and not is_random(node):
            inputs = [None if value is None else constants[value] for value in node.inputs]
            values = evaluate_node(self._model, node, inputs)
        elif infer_sequence(node, self):
            return
        elif node.op_type == "If" and node.domain == "":
            self._visit_branches(node)
            return
        else:
            _infer(self._model, node, self)
            return
        for output, value in zip(node.outputs, values):
            array = np.asarray(value)
            self.record(output, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            if array.size <= _MAX_CONSTANT:
                constants[output] = array

    def _visit_branches(self, node: ir.Node) -> None:
        """Infer an If whose condition depends on the data: both branches must give equal shapes."""
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        for branch in branches:
            for value in branch.initializers.values():
                self.add_initializer(value)
            for inner in branch:
                self.visit(inner)
        for output, *results in zip(node.outputs, *(branch.outputs for branch in branches)):
            shapes = [self.found.shapes.get(result) for result in results]
            if shapes[0] is None or shapes[0] != shapes[1]:
                raise _depends_on_data(node, output)
            self.record(output, self.types[results[0]].tensor_type.elem_type, shapes[0])


def _small(node: ir.Node, found: InferredShapes) -> bool:
    """Whether the values of `node`, whose inputs are known, are cheap to compute and to keep."""
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        sizes = found.constants[node.inputs[-1]]
        return sizes.size == 0 or float(np.prod(sizes.astype(float))) <= _MAX_CONSTANT
    return node.op_type not in ("Conv", "Gemm", "BatchNormalization", "If", "Loop", "Scan")


def _infer(model: ir.Model, node: ir.Node, inference: ShapeInference) -> None:
    """Infer the output shapes of a node whose values depend on the data."""
    found = inference.found
    inputs = [value for value in node.inputs if value is not None]
    for value in inputs:
        if value not in inference.types:
            raise GraphScaleError(
                f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing "
                "computes; export the model again"
            )
    if node.op_type in _CONVOLUTIONS:
        _check_kernel(node, found)
    if node.op_type == "Slice" and node.domain == "":
        _check_slice(node, found)
    if is_layer(node):
        for output, (elem_type, sizes) in zip(node.outputs, infer_layer(node, inference.types)):
            if any(size < 0 for size in sizes):
                raise _depends_on_data(node, output)
            inference.record(output, elem_type, sizes)
        return
    types = _output_types(model, node, inference)
    for output in node.outputs:
        if not output.name:
            continue
        kind = types.get(output.name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            if output.uses() or output.is_graph_output():
                raise _depends_on_data(node, output)
            continue
        dims = kind.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise _depends_on_data(node, output)
        shape = [dim.dim_value for dim in dims]
        if any(size < 0 for size in shape):
            raise GraphScaleError(
                f"node {node.name!r} ({node.op_type}): its output {output.name!r} would have the "
                f"shape {shape}; check the model or give another --input-size"
            )
        if node.op_type in _POOLS and node.attributes.get_int("ceil_mode", 0):
            shape = _without_empty_windows(node, found.shapes[node.inputs[0]], shape)
        inference.record(output, kind.tensor_type.elem_type, shape)


def _check_kernel(node: ir.Node, found: InferredShapes) -> None:
    """Raise where a convolution's kernel does not fit its input; ONNX lets some cases pass."""
    x, kernel = found.shapes[node.inputs[0]], found.shapes[node.inputs[1]]
    if len(kernel) != len(x) or len(x) < 3 or 0 in kernel:
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}): its weight of shape {list(kernel)} does not fit "
            f"its input of shape {list(x)}; check the model"
        )


def _check_slice(node: ir.Node, found: InferredShapes) -> None:
    """Raise where an empty tensor is read backwards, at which ONNX's inference ends the process."""
    shape = found.shapes[node.inputs[0]]
    steps = found.constants.get(node.inputs[4]) if len(node.inputs) > 4 else None
    if 0 in shape and steps is not None and (steps < 0).any():
        raise GraphScaleError(
            f"node {node.name!r} (Slice) reads a tensor of shape {list(shape)}, which is empty; "
            "check the model or give another --input-size"
        )


def _output_types(
    model: ir.Model, node: ir.Node, inference: ShapeInference
) -> dict[str, onnx.TypeProto]:
    """Types of the outputs of `node`, by name, as ONNX's own inference gives them."""
    try:
        proto = ir.serde.serialize_node(node)
    except Exception:
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}) is damaged; export or copy the model again"
        ) from None
    inputs = [value for value in node.inputs if value is not None]
    domain, op_type = _EQUIVALENTS.get((node.domain, node.op_type), (node.domain, node.op_type))
    function = model.functions.get((domain, op_type, node.overload))
    try:
        if function is not None:
            given = [inference.types[value] for value in inputs]
            outputs = onnx.shape_inference.infer_function_output_types(
                ir.to_proto(function), given, proto.attribute
            )
            return dict(zip((value.name for value in node.outputs), outputs))
        version = model.opset_imports.get(domain, model.opset_imports.get("", 1))
        schema = onnx.defs.get_schema(op_type, version, domain)
        if (domain, op_type) != (node.domain, node.op_type):
            proto.domain, proto.op_type = domain, op_type
            known = [each for each in proto.attribute if each.name in schema.attributes]
            proto.ClearField("attribute")
            proto.attribute.extend(known)
        constants = inference.found.constants
        numbers = {
            value.name: onnx.numpy_helper.from_array(constants[value], value.name)
            for value in inputs
            if value in constants and constants[value].size <= _MAX_OPERAND
        }
        return onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            {value.name: inference.types[value] for value in inputs},
            numbers,
            opset_imports=[onnx.helper.make_opsetid(*each) for each in model.opset_imports.items()],
            ir_version=model.ir_version,
        )
    except onnx.defs.SchemaError:
        raise GraphScaleError(
            f"node {node.name!r} has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which "
            "ONNX does not define at this opset; replace it before shrinking"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}) does not fit the input size: {reason}; "
            "check the model or give another --input-size"
        ) from error


def _without_empty_windows(node: ir.Node, before: Sequence[int], shape: list[int]) -> list[int]:
    """The output `shape` of a pooling without the windows that would start in the end padding.

    Before opset 22, ONNX's shape inference counts such windows in ceil_mode; no runtime computes
    them.
    """
    rank = len(before) - 2
    strides = node.attributes.get_ints("strides", [1] * rank)
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    last = [(size - 1) * stride for size, stride in zip(shape[2:], strides)]
    empty = [at >= size + pad for at, size, pad in zip(last, before[2:], pads)]
    return [*shape[:2], *(size - extra for size, extra in zip(shape[2:], empty))]


def _depends_on_data(node: ir.Node, output: ir.Value) -> GraphScaleError:
    return GraphScaleError(
        f"node {node.name!r} ({node.op_type}): the shape of its output {output.name!r} depends on "
        "the data that the network is fed; leave this node out of the model"
    )
