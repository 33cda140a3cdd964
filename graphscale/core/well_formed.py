"""Check a model that was just read: names, order of nodes, and tensors.

Each check raises GraphScaleError with one sentence that names the file and the place, or returns.
The passes rely on these properties.
"""

from __future__ import annotations

import contextlib

import onnx_ir as ir

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
    if tensor.dtype != ir.DataType.STRING and not external:
        try:
            found = tensor.numpy().shape if _has_numbers(tensor) else None
        except Exception:  # onnx-ir and numpy raise errors of many kinds
            found = None
        if found != tuple(sizes):
            raise GraphScaleError(
                f"{name}: tensor {tensor.name!r} does not hold the numbers that its shape {sizes} "
                f"and its type {tensor.dtype.name} ask for; export the model again"
            )
    return tensor


def _has_numbers(tensor: ir.TensorProtocol) -> bool:
    """Whether the message of a tensor holds numbers; where it has none, onnx-ir reads zeros."""
    if not isinstance(tensor, ir.serde.TensorProtoTensor) or tensor.size == 0:
        return True
    proto = tensor.raw
    typed = (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data)
    return bool(proto.raw_data or any(typed) or proto.uint64_data)


def check_nodes(model: ir.Model, name: str) -> None:
    """Raise for names that are not UTF-8 (bytes in protobuf) and for attributes without a type."""
    nodes = [
        node for graph in (model.graph, *model.functions.values()) for node in graph.all_nodes()
    ]
    for node in nodes:
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        texts = [node.name, node.op_type, node.domain, *(value.name for value in values)]
        if node.domain == "":
            texts += [each.value for each in node.attributes.values() if not each.is_ref()]
        untyped = [each.type == ir.AttributeType.UNDEFINED for each in node.attributes.values()]
        if any(untyped) or any(isinstance(text, bytes) for text in texts):
            raise GraphScaleError(
                f"{name}: node {node.name!r} is damaged (text that is not UTF-8, or an attribute "
                "without a type); export or copy the file again"
            )
