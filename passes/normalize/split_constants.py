"""Give each reader of a shared integer constant one of its own, and merge equal ones again.

Exporters merge equal integers: one constant [2] can be a Slice's start and another operator's axis.
A change of the start must not change the axis. Shrinking therefore works on a graph in which each
reader has a copy, and afterwards merges the copies whose numbers are still equal. The target that
the plan carries is the graph before the split.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.evaluate_node import constant_of
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.rewrite_result import RewriteResult

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_MAX_ELEMENTS = 16  # sizes, axes, starts and pads are no more: one or two for each dimension


class SplitConstants(ir.passes.InPlacePass):
    """Give every reader of a small integer constant a copy; the first reader keeps the original.

    Attributes:
        copies: After the call, each copy and the constant that it was made from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[ir.Value, ir.Value] = {}

    def call(self, model: ir.Model) -> RewriteResult:
        """Split in place; the result names the copies."""
        shared = [
            (value, numbers)
            for value in _constants(model)
            if len(value.uses()) > 1 and (numbers := _numbers(value)) is not None
        ]
        names = FreeNames.for_values(model) if shared else None
        for value, numbers in shared:
            for node, index in list(value.uses())[1:]:
                copy = add_initializer(model, f"{value.name}.copy", numbers.copy(), names)
                node.replace_input_with(index, copy)
                self.copies[copy] = value
        return RewriteResult.of(model, [copy.name for copy in self.copies])


class MergeConstants(ir.passes.InPlacePass):
    """Undo `SplitConstants` for the copies whose numbers equal the original's or each other's.

    The result names the copies that are gone.

    Args:
        copies: What SplitConstants has made. Those that lost their reader meanwhile are removed.
    """

    def __init__(self, copies: Mapping[ir.Value, ir.Value]) -> None:
        super().__init__()
        self._copies = copies

    def call(self, model: ir.Model) -> RewriteResult:
        """Merge in place."""
        merged = []
        # By original and numbers, the constant that all copies with these numbers become.
        kept: dict[tuple[ir.Value, bytes], ir.Value] = {}
        for copy, original in self._copies.items():
            if copy.graph is None:
                continue
            if copy.uses():
                kept.setdefault((original, _bytes(original)), original)
                other = kept.setdefault((original, _bytes(copy)), copy)
                if other is copy:
                    continue
                copy.replace_all_uses_with(other)
            del model.graph.initializers[copy.name]
            merged.append(copy.name)
        return RewriteResult.of(model, merged)


def _constants(model: ir.Model) -> list[ir.Value]:
    """The initializers, and the outputs of Constant nodes."""
    nodes = [node for node in model.graph if node.op_type == "Constant" and node.domain == ""]
    return [*model.graph.initializers.values(), *(node.outputs[0] for node in nodes)]


def _numbers(value: ir.Value) -> np.ndarray | None:
    """The numbers of a small integer constant; None of other values."""
    tensor = value.const_value if value.is_initializer() else None
    if tensor is not None:
        small = tensor.dtype in _INTEGERS and tensor.size <= _MAX_ELEMENTS
        return tensor.numpy() if small else None
    node = value.producer()
    if node is None or node.op_type != "Constant":
        return None
    held = node.attributes.get("value")
    if held is not None and held.as_tensor().size > _MAX_ELEMENTS:
        return None
    if held is None and not {"value_int", "value_ints"} & set(node.attributes):
        return None
    numbers = constant_of(node)
    small = numbers.dtype in (np.int64, np.int32) and numbers.size <= _MAX_ELEMENTS
    return numbers if small else None


def _bytes(value: ir.Value) -> bytes:
    """A key that is equal for constants of equal shape and numbers."""
    numbers = _numbers(value)
    return b"" if numbers is None else repr((numbers.shape, numbers.tolist())).encode()
