"""Recognize the mask of shifted windows among the constants that are added to a map.

In go a constant and the dimensions of the scores that it is added to; out come its dimensions with
the windows' numbers and sizes as factors, as `core.shifted_windows` orders them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graphscale.core.shifted_windows import crosses_border
from graphscale.passes.graph.weight_source import tensor_of
from graphscale.passes.spatial.dimensions import Dim, DimensionFactor, Dims, target_size


def window_mask_dims(held: ir.Value, dims: Dims) -> Dims | None:
    """The dimensions of a mask of shifted windows; None for any other constant.

    Args:
        held: The initializer or Constant output that holds it.
        dims: Its dimensions, as far as the scores tell: windows, pixels, pixels, and any of size 1.
    """
    tensor = tensor_of(held)
    places = [at for at, dim in enumerate(dims) if target_size(dim) > 1]
    if len(places) != 3 or not tensor.dtype.is_floating_point():
        return None
    windows, first, second = (dims[at] for at in places)
    array = tensor.numpy().reshape([target_size(dims[at]) for at in places])
    masked = array != 0
    if first != second or not masked.any() or (array[masked] != array.min()).any():
        return None
    for numbers in _splits(windows, len(array)):
        for pixels in _splits(first, array.shape[1]):
            sizes = [factor.size for factor in (*numbers, *pixels, *pixels)]
            if np.array_equal(masked.reshape(sizes), crosses_border(sizes)):
                found = dict(zip(places, (numbers, pixels, pixels)))
                return tuple(found.get(at, ()) for at in range(len(dims)))
    return None


def _splits(dim: Dim, number: int) -> Iterator[Dim]:
    """The ways in which a number may be a product of one along height and one along width."""
    if len(dim) == 2:
        yield dim
    if not any(factor.moves for factor in dim):
        for down in range(1, number + 1):
            if number % down == 0:
                yield DimensionFactor(down), DimensionFactor(number // down)
