"""ONNX operators in torch, one file per family; `OPERATORS` is the whole table."""

from graphscale.convert.operators import (
    activation,
    arithmetic,
    attention,
    control,
    convolution,
    indexing,
    layers,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
)
from graphscale.convert.operators.registry import OPERATORS, Operator, operator

__all__ = [
    "OPERATORS",
    "Operator",
    "activation",
    "arithmetic",
    "attention",
    "control",
    "convolution",
    "indexing",
    "layers",
    "normalization",
    "operator",
    "pooling",
    "reduction",
    "resize",
    "shape",
]
