"""Compute the outputs of one node whose inputs are known numbers or known shapes.

ONNX's reference implementation computes them, so that each operator means what ONNX defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

from graphscale.core.errors import GraphScaleError

# The reference implementation has these operators from this opset on. Older versions of the
# operators mean the same, for fewer types.
_IMPLEMENTED_FROM = {"QuantizeLinear": 19, "DequantizeLinear": 19}

# The attributes of Constant: their types, and the numbers' type.
_CONSTANTS = {
    "value": (ir.AttributeType.TENSOR, None),
    "value_float": (ir.AttributeType.FLOAT, np.float32),
    "value_floats": (ir.AttributeType.FLOATS, np.float32),
    "value_int": (ir.AttributeType.INT, np.int64),
    "value_ints": (ir.AttributeType.INTS, np.int64),
    "value_string": (ir.AttributeType.STRING, None),
    "value_strings": (ir.AttributeType.STRINGS, None),
}


def evaluate_node(
    model: ir.Model, node: ir.Node, values: Sequence[np.ndarray | None]
) -> list[np.ndarray]:
    """Compute the outputs of `node` for its inputs' `values` (None for an input left out).

    Raises:
        GraphScaleError: the node cannot be computed for these values; names it.
    """
    # With names that depend on the place alone, equal nodes have equal text and share an evaluator.
    proto = ir.serde.serialize_node(node)
    proto.ClearField("metadata_props")
    proto.name = proto.doc_string = ""
    proto.input[:] = [name and f"i{index}" for index, name in enumerate(proto.input)]
    proto.output[:] = [name and f"o{index}" for index, name in enumerate(proto.output)]
    opset = max(model.opset_imports.get("", 1), _IMPLEMENTED_FROM.get(node.op_type, 1))
    ir_version = max(model.ir_version, 9) if opset >= 19 else model.ir_version
    try:
        evaluator, names = _evaluator(proto.SerializeToString(), opset, ir_version)
        given = [value for value in values if value is not None]
        with np.errstate(all="ignore"):  # a runtime computes infinity and NaN in silence, too
            results = iter(evaluator.run(None, dict(zip(names, given, strict=True))))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise GraphScaleError(
            f"node {node.name!r} ({node.op_type}) cannot be computed: {reason}; "
            "check the model, or fold its constants when exporting"
        ) from error
    return [next(results) if name else np.zeros(0) for name in proto.output]


def constant_of(node: ir.Node) -> np.ndarray:
    """The numbers that a Constant node holds.

    Raises:
        GraphScaleError: it has other attributes than one with a value, or of another type.
    """
    attributes = list(node.attributes.items())
    name, attribute = attributes[0] if len(attributes) == 1 else ("", None)
    if attribute is None or name not in _CONSTANTS or attribute.type != _CONSTANTS[name][0]:
        raise GraphScaleError(f"node {node.name!r} (Constant) is damaged; export the model again")
    if name == "value":
        return attribute.value.numpy()
    return np.asarray(attribute.value, _CONSTANTS[name][1])


def shape_of(node: ir.Node, shape: tuple[int, ...]) -> np.ndarray:
    """The output of a Shape or Size node that reads a tensor of `shape`."""
    if node.op_type == "Size":
        return np.asarray(int(np.prod(shape)), np.int64)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    return np.asarray(shape[start:end], np.int64)


@lru_cache(maxsize=1024)
def _evaluator(node: bytes, opset: int, ir_version: int) -> tuple[ReferenceEvaluator, list[str]]:
    """The evaluator of one node, and its inputs' names; exports hold many equal nodes."""
    proto = NodeProto.FromString(node)
    names = [name for name in proto.input if name]
    graph = helper.make_graph(
        [proto],
        "node",
        [ValueInfoProto(name=name) for name in names],
        [ValueInfoProto(name=name) for name in proto.output if name],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return ReferenceEvaluator(model), names
