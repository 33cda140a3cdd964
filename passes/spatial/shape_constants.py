"""Change the constants that hold shapes, however an exporter wrote them.

A shape operand (a Reshape's target, a Slice's start) may be one initializer, a Constant node, or a
Concat of single numbers, some of which are computed from Shape nodes. In go the numbers that an
operand must hold in the pre-train network. `demand` carries them back, through the nodes in
between, to the constants that they come from, and changes those. Numbers that are computed from
Shape nodes change by themselves when the shapes do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.evaluate_node import constant_of, evaluate_node, shape_of
from graphscale.passes.graph.infer_shapes import InferredShapes

# Operators that hand the numbers on in the same order.
_TRANSPARENT = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"}


class ShapeConstants:
    """The edits to one model's shape constants.

    Args:
        model: The model, which is edited in place.
        inferred: Its shapes and constants in the target network.

    Attributes:
        changed: Names of the constants whose numbers differ from the target's.
    """

    def __init__(self, model: ir.Model, inferred: InferredShapes) -> None:
        self.model = model
        self.inferred = inferred
        self.changed: list[str] = []
        self._wanted: dict[ir.Value, np.ndarray] = {}

    def demand(self, node: ir.Node, index: int, wanted: np.ndarray, freeze: bool = False) -> None:
        """Make input `index` of `node` hold `wanted` in the pre-train network.

        Numbers that are computed from Shape nodes are left to follow the shapes. With `freeze` they
        are replaced by a constant, which is right where no batch size can be among them.
        """
        value = node.inputs[index]
        current = self.inferred.constants.get(value)
        if current is None:
            return
        wanted = np.asarray(wanted).reshape(current.shape).astype(current.dtype)
        if freeze and _follows_shapes(value):
            self.replace(node, index, wanted)
            return
        if np.array_equal(current, wanted) and value not in self._wanted:
            self._wanted[value] = wanted  # another reader may not change it any more
            return
        producer = value.producer()
        # Either the constant is reached, or the demand goes on to the producer's inputs.
        if producer is None or producer.op_type == "Constant":
            self._set(node, index, value, wanted)
        elif producer.op_type in _TRANSPARENT:
            source = self.inferred.constants[producer.inputs[0]]
            self.demand(producer, 0, wanted.reshape(source.shape))
        elif producer.op_type == "Concat":
            at = 0  # each part gets its piece of the wanted numbers
            for position, part in enumerate(producer.inputs):
                size = self.inferred.constants[part].size
                self.demand(producer, position, wanted[at : at + size])
                at += size
        elif not _follows_shapes(value):  # computed from constants by other arithmetic
            self.replace(node, index, wanted)

    def computed(self, value: ir.Value, sizes: Callable[[ir.Value], list[int]]) -> np.ndarray:
        """Compute the numbers of a shape operand in the pre-train network.

        `sizes` gives the pre-train shape of a tensor, for the Shape nodes behind the operand.
        """
        node = value.producer()
        if node is None:
            return value.const_value.numpy()
        if node.op_type == "Constant":
            return constant_of(node)
        if node.op_type in ("Shape", "Size"):
            return shape_of(node, tuple(sizes(node.inputs[0])))
        given = [None if each is None else self.computed(each, sizes) for each in node.inputs]
        return evaluate_node(self.model, node, given)[value.index()]

    def _set(self, node: ir.Node, index: int, value: ir.Value, wanted: np.ndarray) -> None:
        """Change the constant `value`, or give this reader one of its own where readers differ."""
        earlier = self._wanted.get(value)
        if earlier is not None and not np.array_equal(earlier, wanted):
            self.replace(node, index, wanted)
            return
        self._wanted[value] = wanted
        self.changed.append(value.name)
        producer = value.producer()
        tensor = ir.Tensor(np.array(wanted, order="C"), name=value.name)
        if producer is None:
            value.const_value = tensor
            return
        # A Constant node holds its numbers in one of five attributes.
        ((name, _),) = producer.attributes.items()
        if name == "value":
            producer.attributes[name] = ir.AttrTensor(name, tensor)
        elif name == "value_int":
            producer.attributes[name] = ir.AttrInt64(name, int(wanted))
        elif name == "value_ints":
            producer.attributes[name] = ir.AttrInt64s(name, wanted.tolist())
        elif name == "value_float":
            producer.attributes[name] = ir.AttrFloat32(name, float(wanted))
        else:
            producer.attributes[name] = ir.AttrFloat32s(name, wanted.tolist())

    def replace(self, node: ir.Node, index: int, wanted: np.ndarray) -> None:
        """Give input `index` of `node` a constant of its own, of any shape, with these numbers."""
        value = node.inputs[index]
        array = np.array(wanted, order="C")
        initializer = add_initializer(self.model, f"{value.name}.pretrain", array)
        node.replace_input_with(index, initializer)
        self.changed.append(initializer.name)


def _follows_shapes(value: ir.Value) -> bool:
    """Whether a value is computed from a Shape node."""
    seen: set[ir.Value] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        if each in seen or each is None or each.producer() is None:
            continue
        seen.add(each)
        if each.producer().op_type in ("Shape", "Size"):
            return True
        pending += each.producer().inputs
    return False
