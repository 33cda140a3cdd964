"""Change the constants that hold shapes, however an exporter wrote them.

A shape operand may be one initializer, a Constant node, or a Concat of single numbers of which some
are computed from Shape nodes. `demand` carries the wanted numbers back to the constants behind them
and leaves alone what follows from shapes by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.evaluate_node import constant_of, evaluate_node, shape_of
from graphscale.passes.graph.infer_shapes import InferredShapes

_TRANSPARENT = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"}


class ShapeConstants:
    """The edits to one model's shape constants.

    Attributes:
        changed: Names of the constants whose numbers differ from the target's.
    """

    def __init__(self, model: ir.Model, measured: InferredShapes) -> None:
        self.model = model
        self.measured = measured
        self.changed: list[str] = []
        self._wanted: dict[ir.Value, np.ndarray] = {}

    def demand(self, node: ir.Node, index: int, wanted: np.ndarray, freeze: bool = False) -> None:
        """Let input `index` of `node` hold `wanted`.

        What is computed from Shape nodes is trusted to follow, or with `freeze` made a constant
        (right where no batch size can be among the numbers).
        """
        value = node.inputs[index]
        current = self.measured.constants.get(value)
        if current is None:
            return
        wanted = np.asarray(wanted).reshape(current.shape).astype(current.dtype)
        if freeze and _follows_shapes(value):
            self._replace(node, index, value, wanted)
            return
        if np.array_equal(current, wanted) and value not in self._wanted:
            self._wanted[value] = wanted
            return
        producer = value.producer()
        if producer is None or producer.op_type == "Constant":
            self._set(node, index, value, wanted)
        elif producer.op_type in _TRANSPARENT:
            source = self.measured.constants[producer.inputs[0]]
            self.demand(producer, 0, wanted.reshape(source.shape))
        elif producer.op_type == "Concat":
            at = 0
            for position, part in enumerate(producer.inputs):
                size = self.measured.constants[part].size
                self.demand(producer, position, wanted[at : at + size])
                at += size
        elif not _follows_shapes(value):
            self._replace(node, index, value, wanted)

    def computed(self, value: ir.Value, sizes: Callable[[ir.Value], list[int]]) -> np.ndarray:
        """What a shape operand amounts to in the pre-train network, where tensors have `sizes`."""
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
        earlier = self._wanted.get(value)
        if earlier is not None and not np.array_equal(earlier, wanted):
            self._replace(node, index, value, wanted)
            return
        self._wanted[value] = wanted
        self.changed.append(value.name)
        producer = value.producer()
        tensor = ir.Tensor(np.ascontiguousarray(wanted), name=value.name)
        if producer is None:
            value.const_value = tensor
            return
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

    def _replace(self, node: ir.Node, index: int, value: ir.Value, wanted: np.ndarray) -> None:
        """Give this reader a constant of its own: others want other numbers of `value`."""
        initializer = add_initializer(
            self.model, f"{value.name}.pretrain", np.ascontiguousarray(wanted)
        )
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
