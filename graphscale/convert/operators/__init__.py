"""Translations of ONNX operators to torch, one file per family.

Importing this package fills the registry `TRANSLATIONS`; `translates` adds an operator to it.
"""

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
    quantization,
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
    "quantization",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "shape",
    "translates",
]
