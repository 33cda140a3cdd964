"""Add an initializer to a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.free_names import FreeNames

_FIRST_WITH_FREE_INITIALIZERS = 4  # IR version; before it each initializer was a graph input too


def add_initializer(
    model: ir.Model, name: str, array: np.ndarray, names: FreeNames | None = None
) -> ir.Value:
    """Register `array` as an initializer called `name`; a taken name gets a number appended.

    Args:
        model: The model, which is changed in place.
        name: The wished name.
        array: The numbers.
        names: The names that are taken. A caller that adds many initializers makes them once;
            without them, each call walks through the whole model.
    """
    free = (names or FreeNames.for_values(model)).free(name)
    return register_initializer(model, free, array)


def register_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer under exactly this name, which no other value bears."""
    value = ir.Value(
        name=name,
        const_value=ir.Tensor(array, name=name),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
    )
    model.graph.register_initializer(value)
    model.ir_version = max(model.ir_version, _FIRST_WITH_FREE_INITIALIZERS)
    return value
