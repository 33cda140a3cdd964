"""Output shapes of graphscale's own operators, whose function bodies ONNX cannot see through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

Shape = tuple[int, ...]


def _pool_features(node: ir.Node, x: Shape) -> Shape:
    stride = node.attributes.get_int("stride", 1)
    return (x[0], (x[1] - node.attributes["width"].as_int()) // stride + 1, *x[2:])


def _pool_frames(node: ir.Node, x: Shape) -> Shape:
    share = node.attributes.get_float("k_dynamic", 0.0)
    return (x[0], max(node.attributes["k"].as_int(), math.ceil(share * x[1] - 1e-4)), x[2])


def _convolve_frames(node: ir.Node, x: Shape, weight: Shape) -> Shape:
    stride = node.attributes.get_int("stride", 1)
    return (x[0], (x[1] - weight[1]) // stride + 1, weight[0])


_SHAPES: dict[str, Callable[..., Shape]] = {
    "FeatureLPPooling": _pool_features,
    "Maxout": _pool_features,
    "CrossMapNormalization": lambda node, x: x,
    "TemporalKMaxPool": _pool_frames,
    "TemporalConv": _convolve_frames,
    "LookupTable": lambda node, weight, indices: (*indices, weight[1]),
    "WeightedLookupTable": lambda node, weight, indices: (*indices, weight[1]),
    "LocallyConnected": lambda node, x, weight: (x[0], *weight[:3]),
}


def layer_shape(node: ir.Node, inputs: Sequence[Shape]) -> Shape | None:
    """The shape of every output of `node`; None where it is none of these operators."""
    shape = _SHAPES.get(node.op_type) if node.domain == "graphscale" else None
    if shape is None:
        return None
    return shape(node, *inputs[: shape.__code__.co_argcount - 1])
