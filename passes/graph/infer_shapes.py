"""Measure every tensor's shape at a given input size, and every value that shapes alone decide.

ONNX's own per-node shape inference does the work; shape arithmetic (Shape, Gather, Concat, Mul …)
is evaluated with ONNX's reference implementation, so that Reshape, Resize, Slice and their kind get
the numbers they are really fed, however an exporter wrote them.
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
from graphscale.passes.graph.infer_layer_shapes import layer_shape
from graphscale.passes.graph.infer_sequences import infer_sequence

_LARGEST_CONSTANT = 1 << 16  # elements; larger values are weights, not shape arithmetic

# Operators whose outputs have the shapes that another operator gives the same inputs.
_EQUIVALENTS = {
    ("graphscale", "FFTConv"): "Conv",
    ("com.microsoft", "FusedConv"): "Conv",
    ("com.microsoft", "Gelu"): "Relu",
    ("com.microsoft", "QuickGelu"): "Relu",
    ("com.microsoft", "FastGelu"): "Relu",
    ("", "MeanVarianceNormalization"): "Relu",  # defined by a function, which inference gives up on
}

_POOLS = ("MaxPool", "AveragePool", "LpPool")


@dataclass
class InferredShapes:
    """Shapes and known values of a model at one input size.

    Attributes:
        shapes: Shape of each tensor, all dimensions known.
        constants: Values decided by shapes and constants alone, such as a Reshape's target.
        sequences: Shapes of the tensors in each sequence.
    """

    shapes: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    sequences: dict[ir.Value, list[tuple[int, ...]]] = field(default_factory=dict)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Shape of `value`."""
        return self.shapes[value]


def infer_shapes(
    model: ir.Model, input_shapes: Mapping[str, Sequence[int]], until: ir.Node | None = None
) -> InferredShapes:
    """Shapes of all tensors, or of those before `until`, when the inputs have `input_shapes`.

    Raises:
        GraphScaleError: an operator is unknown, or shapes do not fit together; names the node.
    """
    measured = InferredShapes()
    types: dict[ir.Value, onnx.TypeProto] = {}

    def record(value: ir.Value, elem_type: int, shape: Sequence[int]) -> None:
        types[value] = onnx.helper.make_tensor_type_proto(elem_type, shape)
        measured.shapes[value] = tuple(shape)

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        record(value, tensor.dtype.value, tensor.shape.numpy())
        if tensor.size <= _LARGEST_CONSTANT and tensor.dtype != ir.DataType.STRING:
            measured.constants[value] = tensor.numpy()
    for value in graph_inputs(model):
        if value.dtype is None or value.name not in input_shapes:
            raise GraphScaleError(f"input {value.name!r} has no known shape; give its shape")
        record(value, value.dtype.value, input_shapes[value.name])
    for node in model.graph:
        if node is until:
            break
        _measure_node(model, node, measured, types, record)
    for value in model.graph.outputs:
        if until is None and value.producer() is None and value not in measured.shapes:
            raise GraphScaleError(
                f"nothing computes the output {value.name!r}; export the model again"
            )
    return measured


def _measure_node(model: ir.Model, node: ir.Node, measured: InferredShapes, types, record) -> None:
    known = [value is None or value in measured.constants for value in node.inputs]
    if node.op_type == "Constant" and node.domain == "":
        values = [constant_of(node)]
    elif node.op_type in ("Shape", "Size") and node.domain == "":
        values = [shape_of(node, measured.shapes[node.inputs[0]])]
    elif all(known) and node.domain == "" and _small(node, measured) and not _random(node):
        inputs = [None if value is None else measured.constants[value] for value in node.inputs]
        values = evaluate_node(model, node, inputs)
    elif infer_sequence(node, measured, types, record):
        return
    else:
        _infer(model, node, measured, types, record)
        return
    for output, value in zip(node.outputs, values):
        array = np.asarray(value)
        record(output, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        if array.size <= _LARGEST_CONSTANT:
            measured.constants[output] = array


def _small(node: ir.Node, measured: InferredShapes) -> bool:
    """Whether evaluating `node` gives shape arithmetic rather than a tensor of weights."""
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        sizes = measured.constants[node.inputs[-1]]
        return sizes.size == 0 or float(np.prod(sizes.astype(float))) <= _LARGEST_CONSTANT
    return node.op_type not in ("Conv", "Gemm", "BatchNormalization", "If", "Loop", "Scan")


def _random(node: ir.Node) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def _infer(model: ir.Model, node: ir.Node, measured: InferredShapes, types, record) -> None:
    domain, op_type = node.domain, _EQUIVALENTS.get((node.domain, node.op_type), node.op_type)
    inputs = [value for value in node.inputs if value is not None]
    for value in inputs:
        if value not in types:
            raise GraphScaleError(
                f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing "
                "computes; export the model again"
            )
    shape = layer_shape(node, [measured.shapes[value] for value in inputs])
    if shape is not None:
        first = types[inputs[0]].tensor_type.elem_type
        for output, kind in zip(node.outputs, (first, onnx.TensorProto.INT64)):  # value and index
            record(output, kind, shape)
        return
    try:
        proto = ir.serde.serialize_node(node)
    except Exception:
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}) is damaged; export or copy the model again"
        ) from None
    input_types = {value.name: types[value] for value in inputs}
    data = {
        value.name: onnx.numpy_helper.from_array(measured.constants[value], value.name)
        for value in inputs
        if value in measured.constants and measured.constants[value].size <= 1024
    }
    try:
        function = model.functions.get((domain, node.op_type, node.overload))
        if op_type != node.op_type:
            domain, proto.domain, proto.op_type = "", "", op_type
        if function is not None and op_type == node.op_type:
            outputs = onnx.shape_inference.infer_function_output_types(
                ir.to_proto(function), [types[value] for value in inputs], proto.attribute
            )
            inferred = dict(zip((v.name for v in node.outputs), outputs))
        else:
            version = model.opset_imports.get(domain, model.opset_imports.get("", 1))
            schema = onnx.defs.get_schema(op_type, version, domain)
            if op_type != node.op_type:
                known = [each for each in proto.attribute if each.name in schema.attributes]
                proto.ClearField("attribute")
                proto.attribute.extend(known)
            opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, proto, input_types, data, opset_imports=opsets, ir_version=model.ir_version
            )
    except onnx.defs.SchemaError:
        raise GraphScaleError(
            f"node {node.name!r} has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which "
            "ONNX does not define at this opset; replace it before shrinking"
        ) from None
    except Exception as error:
        raise _failure(node, error) from error
    for output in node.outputs:
        if not output.name:
            continue
        kind = inferred.get(output.name)
        dims = kind.tensor_type.shape.dim if kind is not None else None
        if kind is None or not kind.tensor_type.HasField("shape"):
            if output.uses() or output.is_graph_output():
                raise _failure(node, f"the shape of {output.name!r} cannot be worked out")
            continue
        if not all(dim.HasField("dim_value") for dim in dims):
            raise _failure(node, f"the shape of {output.name!r} depends on the data")
        shape = [dim.dim_value for dim in dims]
        if op_type in _POOLS and node.attributes.get_int("ceil_mode", 0):
            shape = _without_empty_windows(node, measured.shapes[node.inputs[0]], shape)
        record(output, kind.tensor_type.elem_type, shape)


def _without_empty_windows(node: ir.Node, before: Sequence[int], shape: list[int]) -> list[int]:
    """`shape` less the windows that would start in the padding at the end.

    ONNX's shape inference counts them before opset 22; no runtime computes them.
    """
    rank = len(before) - 2
    strides = node.attributes.get_ints("strides", [1] * rank)
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    last = [(size - 1) * stride for size, stride in zip(shape[2:], strides)]
    empty = [at >= size + pad for at, size, pad in zip(last, before[2:], pads)]
    return [*shape[:2], *(size - extra for size, extra in zip(shape[2:], empty))]


def _failure(node: ir.Node, error: object) -> GraphScaleError:
    text = " ".join(str(error).split())
    return GraphScaleError(
        f"node {node.name!r} ({node.op_type}) does not fit the input size: {text[:300]}; "
        "check the model or give another --input-size"
    )
