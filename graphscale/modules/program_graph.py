"""The ONNX graph of a torch program while it is made, as the translations of operators see it.

In: calls of `op`, `constant`, `operand` and `sizes`. Out: ONNX nodes in their order, and constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import from_torch_dtype

from graphscale.modules.module_path import SCOPES


class NotTranslatedError(Exception):
    """The program holds something that is left to torch.onnx."""


@dataclass(frozen=True)
class Number:
    """An integer that follows the batch, as a tensor with one element."""

    value: ir.Value


class ProgramGraph:
    """Collects the ONNX nodes.

    Attributes:
        nodes: The nodes so far.
        constants: Initializers that are no weights of the module.
        call: The call of the program that is being translated.
    """

    def __init__(self, taken: set[str]) -> None:
        """`taken` are names that no value of this graph may have."""
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.call: torch.fx.Node
        self._taken = taken
        self._scopes = ""

    def begin(self, call: torch.fx.Node) -> None:
        """The nodes that follow belong to `call`."""
        self.call = call
        paths = [path for path, _ in call.meta.get("nn_module_stack", {}).values()]
        self._scopes = repr([*paths, call.name])

    @property
    def dtype(self) -> ir.DataType:
        """Type of the call's result."""
        return from_torch_dtype(self.call.meta["val"].dtype)

    def op(self, kind: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its output, or a tuple of them."""
        results = [ir.Value(name=self._free_name(self.call.name)) for _ in range(outputs)]
        given = [_attribute(name, value) for name, value in attributes.items()]
        node = ir.Node("", kind, inputs, given, outputs=results, name=f"node_{results[0].name}")
        node.metadata_props[SCOPES] = self._scopes
        self.nodes.append(node)
        return results[0] if outputs == 1 else tuple(results)

    def constant(self, numbers: Any, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        """A constant, of integers by default."""
        name = self._free_name(f"{self.call.name}.operand")
        tensor = ir.Tensor(np.asarray(numbers, dtype.numpy()), dtype, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self.constants.append(value)
        return value

    def operand(self, value: ir.Value | float | Number) -> ir.Value:
        """A tensor or a number as an operand of the result's type."""
        if isinstance(value, ir.Value):
            return value if value.dtype == self.dtype else self.op("Cast", value, to=self.dtype)
        if isinstance(value, Number):
            raise NotTranslatedError
        return self.constant(value, self.dtype)

    def sizes(self, numbers: Sequence[int | Number]) -> ir.Value:
        """Integers, of which some may follow the batch, as one tensor."""
        if not any(isinstance(each, Number) for each in numbers):
            return self.constant(list(numbers))
        parts = [
            each.value if isinstance(each, Number) else self.constant([each]) for each in numbers
        ]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def _free_name(self, stem: str) -> str:
        """`stem`, or a longer name where it is taken; takes it."""
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}.{count}"
        self._taken.add(name)
        return name


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, Number):  # as the groups of a convolution with weights for each image
        raise NotTranslatedError
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, int(value))
    return ir.AttrInt64s(name, list(value))
