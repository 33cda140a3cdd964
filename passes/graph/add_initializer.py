"""Add an initializer to a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_FIRST_WITH_FREE_INITIALIZERS = 4  # IR version; before it each initializer was a graph input too


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer; a number is appended where `name` is taken."""
    taken = set(model.graph.initializers) | {
        output.name for node in model.graph for output in node.outputs
    }
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    value = ir.Value(
        name=free,
        const_value=ir.Tensor(array, name=free),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
    )
    model.graph.register_initializer(value)
    model.ir_version = max(model.ir_version, _FIRST_WITH_FREE_INITIALIZERS)
    return value
