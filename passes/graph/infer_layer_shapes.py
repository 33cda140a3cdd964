"""Infer the outputs of graphscale's own operators, of which ONNX's shape inference knows nothing.

In go a node and the types of its inputs, out come its outputs' element types and shapes. They are
those of the operator's C++ description, which the compiled library is asked for. Models without
such operators need no library.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from graphscale.core import c_api
from graphscale.core.errors import GraphScaleError
from graphscale.core.operator_definition import DOMAIN

# The kinds of attributes that the library's operators have.
_KINDS = (
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
    ir.AttributeType.INTS,
)


def is_layer(node: ir.Node) -> bool:
    """Whether a node's operator is one of the compiled library's.

    Raises:
        GraphScaleError: the node is in graphscale's domain, but there is no library to ask.
    """
    return node.domain == DOMAIN and node.op_type in c_api.operator_names()


def infer_layer(
    node: ir.Node, types: Mapping[ir.Value, onnx.TypeProto]
) -> list[tuple[int, tuple[int, ...]]]:
    """ONNX element type and shape of each output of a node that `is_layer`.

    Args:
        node: The node.
        types: At least of all its inputs; every dimension is known.

    Raises:
        GraphScaleError: the inputs do not fit the operator; names the node.
    """
    inputs: list[tuple[int, list[int]] | None] = []
    for value in node.inputs:
        if value is None:
            inputs.append(None)
            continue
        kind = types[value].tensor_type
        inputs.append((kind.elem_type, [dim.dim_value for dim in kind.shape.dim]))
    attributes = {
        name: attribute.value
        for name, attribute in node.attributes.items()
        if attribute.type in _KINDS
    }
    try:
        return c_api.infer_shapes(node.op_type, inputs, attributes)
    except GraphScaleError as error:
        raise GraphScaleError(
            f"node {node.name!r}: {error}; check the model or give another --input-size"
        ) from None
