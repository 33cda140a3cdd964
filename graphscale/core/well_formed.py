"""Check a model that was just read: its texts, nodes and their order, and tensors.

Each check raises GraphScaleError with one sentence that names the file and the place, or returns.
The passes rely on these properties.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from graphscale.core.errors import GraphScaleError


def check_versions(model: ir.Model, name: str) -> None:
    """Raise where the model imports a version of an operator set that cannot exist."""
    for graph in (model.graph, *model.functions.values()):
        for domain, version in graph.opset_imports.items():
            if not 1 <= version < 1 << 31:
                raise GraphScaleError(
                    f"{name}: imports version {version} of the operator set {domain or 'ai.onnx'}, "
                    "which does not exist; export the model again"
                )


def check_order(model: ir.Model, name: str) -> None:
    """Sort the nodes of a graph that is not sorted; raise where nothing computes a value."""
    for graph in (model.graph, *model.functions.values()):
        missing = _undefined(graph)
        if missing is not None and missing.producer() is not None:
            with contextlib.suppress(ValueError):  # a circle, which the next line finds again
                graph.sort()
            missing = _undefined(graph)
        if missing is not None:
            raise GraphScaleError(
                f"{name}: nothing computes the value {missing.name!r} before it is read; export "
                "the model again"
            )


def _undefined(graph: ir.Graph | ir.Function) -> ir.Value | None:
    """The first value that is read before anything defines it, if there is one."""
    defined: set[ir.Value] = set()

    def walk(graph: ir.Graph | ir.Function) -> ir.Value | None:
        defined.update(graph.inputs)
        if not isinstance(graph, ir.Function):
            defined.update(graph.initializers.values())
        for node in graph:
            for value in node.inputs:
                if value is not None and value not in defined:
                    return value
            for attribute in node.attributes.values():
                inner = []
                if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                    inner = [attribute.as_graph()]
                elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
                    inner = attribute.as_graphs()
                for each in inner:
                    missing = walk(each)
                    if missing is not None:
                        return missing
            defined.update(node.outputs)
        return next((value for value in graph.outputs if value not in defined), None)

    return walk(graph)


def checked_tensor(tensor: ir.TensorProtocol | None, name: str) -> ir.TensorProtocol | None:
    """Return `tensor`; raise where its shape and type do not fit its bytes."""
    if tensor is None:
        return None
    sizes = list(tensor.shape.numpy())
    try:
        _ = tensor.dtype
    except ValueError:
        raise GraphScaleError(
            f"{name}: tensor {tensor.name!r} has a type that ONNX does not have; export the model "
            "again"
        ) from None
    external = isinstance(tensor, ir.ExternalTensor)
    odd = tensor.dtype == ir.DataType.UNDEFINED or (external and tensor.dtype == ir.DataType.STRING)
    if odd or any(size < 0 for size in sizes):
        raise GraphScaleError(
            f"{name}: tensor {tensor.name!r} has the type {tensor.dtype.name} and the shape "
            f"{sizes}, which no tensor has; export the model again"
        )
    if not external:
        try:
            found = tensor.numpy().shape if _has_values(tensor) else None
        except Exception:  # onnx-ir and numpy raise errors of many kinds
            found = None
        if found != tuple(sizes):
            raise GraphScaleError(
                f"{name}: tensor {tensor.name!r} does not hold the values that its shape {sizes} "
                f"and its type {tensor.dtype.name} ask for; export the model again"
            )
    return tensor


def _has_values(tensor: ir.TensorProtocol) -> bool:
    """Whether the message of a tensor holds values; where it has none, onnx-ir reads zeros."""
    if not isinstance(tensor, ir.serde.TensorProtoTensor) or tensor.size == 0:
        return True
    proto = tensor.raw
    if tensor.dtype == ir.DataType.STRING:
        return len(proto.string_data) == tensor.size
    typed = (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data)
    return bool(proto.raw_data or any(typed) or proto.uint64_data)


def check_texts(message: Message, name: str) -> None:
    """Raise where a field of an ONNX message, however deep, holds text that is not UTF-8.

    protobuf gives such text as bytes, which onnx-ir takes and cannot write again.
    """
    texts, inner = _fields(message.DESCRIPTOR)
    for field in texts:
        value = getattr(message, field)
        if any(isinstance(each, bytes) for each in _entries(value)):
            raise GraphScaleError(
                f"{name}: is damaged (a {field} of {message.DESCRIPTOR.name} is not UTF-8); export "
                "or copy the file again"
            )
    for field in inner:
        value = getattr(message, field)
        if not isinstance(value, Message) or message.HasField(field):
            for each in _entries(value):
                check_texts(each, name)


def _entries(value: Any) -> Iterable[Any]:
    """The values of a repeated field, or the one of another."""
    return [value] if isinstance(value, str | bytes | Message) else value


@functools.cache
def _fields(kind: Descriptor) -> tuple[list[str], list[str]]:
    """The names of a message's fields that hold text, and of those that hold messages."""
    texts = [field.name for field in kind.fields if field.type == field.TYPE_STRING]
    inner = [field.name for field in kind.fields if field.type == field.TYPE_MESSAGE]
    return texts, inner


def check_nodes(model: ir.Model, name: str) -> None:
    """Raise for a node that is damaged, or that its operator's definition does not allow.

    Damaged are names and texts that are not UTF-8 (bytes in protobuf) and attributes without a type
    or, outside of functions, without a value. What ONNX does not define may have any inputs.
    """
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            if _is_damaged(node, isinstance(graph, ir.Function)):
                raise GraphScaleError(
                    f"{name}: node {node.name!r} is damaged (text that is not UTF-8, or an "
                    "attribute without a type or value); export or copy the file again"
                )
            if node.op_identifier() in model.functions:
                continue
            fault = _misfit(node, graph.opset_imports.get(node.domain))
            if fault is not None:
                raise GraphScaleError(
                    f"{name}: node {node.name!r} ({node.op_type}) {fault}; export the model again"
                )


def _is_damaged(node: ir.Node, in_function: bool) -> bool:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    texts = [node.name, node.op_type, node.domain, *(value.name for value in values)]
    attributes = node.attributes.values()
    if node.domain == "":
        texts += [each.value for each in attributes if not each.is_ref()]
    unknown = [
        each.type == ir.AttributeType.UNDEFINED or (each.is_ref() and not in_function)
        for each in attributes
    ]
    return any(unknown) or any(isinstance(text, bytes) for text in texts)


def _misfit(node: ir.Node, version: int | None) -> str | None:
    """What ONNX's definition of an operator forbids in `node`; None where there is nothing."""
    definition = None if version is None else _definition(node.domain, node.op_type, version)
    if definition is None:
        return None
    for index, (formal, needed) in enumerate(definition.inputs):
        if needed and (index >= len(node.inputs) or node.inputs[index] is None):
            return f"lacks its input {formal!r}"
    if len(node.outputs) > definition.max_outputs:
        return f"has {len(node.outputs)} outputs, more than its operator"
    for name, attribute in node.attributes.items():
        kind = definition.attributes.get(name)
        if kind is None and not name.startswith("__"):  # which ONNX leaves to programs
            return f"has the attribute {name!r}, unlike its operator"
        if kind is not None and attribute.type.value != kind:
            return f"has the attribute {name!r} of the type {attribute.type.name}"
    missing = next((name for name in definition.needed if name not in node.attributes), None)
    return None if missing is None else f"lacks its attribute {missing!r}"


@dataclass(frozen=True)
class _Definition:
    """What ONNX says of an operator.

    Attributes:
        inputs: (name, whether it is needed) of each.
        max_outputs: How many outputs it may have.
        attributes: The type of each, as ONNX numbers types.
        needed: The attributes that it must have.
    """

    inputs: tuple[tuple[str, bool], ...]
    max_outputs: int
    attributes: dict[str, int]
    needed: tuple[str, ...]


@functools.cache
def _definition(domain: str, op_type: str, version: int) -> _Definition | None:
    """ONNX's definition of an operator, where the installed onnx has one for this version."""
    if not onnx.defs.has(op_type, domain):
        return None
    if domain == "" and version > onnx.defs.onnx_opset_version():
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:  # the operator is younger than the model's operator set
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    attributes = schema.attributes.values()
    return _Definition(
        tuple((formal.name, formal.option == single) for formal in schema.inputs),
        schema.max_output,
        {each.name: int(each.type.value) for each in attributes},
        tuple(each.name for each in attributes if each.required),
    )
