"""ONNX operators in torch, one file per family; `TRANSLATIONS` is the whole registry."""

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
    recurrent,
    reduction,
    resize,
    sampling,
    shape,
)
from graphscale.convert.operators.registry import TRANSLATIONS, Translation, translates

__all__ = [
    "TRANSLATIONS",
    "Translation",
    "activation",
    "arithmetic",
    "attention",
    "control",
    "convolution",
    "indexing",
    "layers",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "shape",
    "translates",
]
