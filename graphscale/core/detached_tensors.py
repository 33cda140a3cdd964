"""Take the large tensors out of an onnx-ir model while it is serialized.

Serializing a model with its weights would hold each weight in memory twice or more. Inside the
block of `detached` the model holds references instead, which serialize to a few bytes, and the
caller has the list of the tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

_SMALL = 1024  # bytes; smaller tensors are kept in the message


def node_tensors(graph: ir.Graph | ir.Function) -> Iterator[tuple[ir.Node, str, ir.Attr]]:
    """(node, attribute name, attribute) of each tensor held by a node, such as Constant's value."""
    for node in graph.all_nodes():
        for name, attribute in node.attributes.items():
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                yield node, name, attribute


@contextlib.contextmanager
def detached(
    model: ir.Model, location: str, offsets: list[int] | None = None
) -> Iterator[list[ir.TensorProtocol]]:
    """Let the model's large tensors be references to `location` inside the block.

    Yields the tensors. The i-th one's reference has the offset offsets[i], or i without `offsets`.
    """
    tensors: list[ir.TensorProtocol] = []

    def reference(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        index = len(tensors)
        tensors.append(tensor)
        offset = offsets[index] if offsets else index
        return ir.ExternalTensor(
            location, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=tensor.name
        )

    def large(tensor: ir.TensorProtocol | None) -> bool:
        return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SMALL

    with contextlib.ExitStack() as restore:
        for graph in model.graphs():
            for value in graph.initializers.values():
                if large(value.const_value):
                    restore.callback(setattr, value, "const_value", value.const_value)
                    value.const_value = reference(value.const_value)
        for graph in [model.graph, *model.functions.values()]:
            for node, key, attribute in list(node_tensors(graph)):
                if large(attribute.value):
                    restore.callback(node.attributes.__setitem__, key, attribute)
                    node.attributes[key] = ir.AttrTensor(key, reference(attribute.value))
        yield tensors
