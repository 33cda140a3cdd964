"""Tell tables of coordinates from tables of learned numbers.

A constant that is added to the pixels of a map, or joined to it as channels, may be learned (a
position embedding) or tell where the pixels stand: the anchor points of a detection head, the
coordinates of CoordConv. A learned table is interpolated. Coordinates must stay on the line on
which their numbers lie along each axis, and those that count pixels must go on doing so. In go the
table and the sizes of its factors; out comes its kind, as `WeightPlan` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Factor, JoinedFactor, dimension_sizes, factor_sizes
from graphscale.passes.graph.weight_source import tensor_of

_OFF_LINE = 1e-3  # steps may differ by this part of the step; float32 rounds coordinates
_SMALLEST_LINE = 3  # pixels; two numbers always lie on a line


def table_kind(value: ir.Value, factors: Sequence[Sequence[Factor]]) -> str:
    """'table', or the kind of a table of coordinates.

    Args:
        value: The initializer or Constant output that holds the table.
        factors: (target, pre-train) sizes of the factors of each dimension.

    Raises:
        GraphScaleError: coordinates have a single pixel left in the pre-train network, from which
            growing could not tell their step.
    """
    tensor = tensor_of(value)
    flat = [factor for dim in factors for factor in dim]
    resized = any(target != pretrain for target, pretrain in map(factor_sizes, flat))
    if not resized or tensor.dtype == ir.DataType.STRING:
        return "table"
    array = tensor.numpy().astype(np.float64)
    kinds = _kinds(array.reshape([factor_sizes(factor)[0] for factor in flat]), flat)
    if len(kinds - {"one pixel"}) != 1 or "none" in kinds:
        return "table"
    if "one pixel" in kinds:
        raise GraphScaleError(
            f"weight {value.name!r} holds coordinates of a map that has a single pixel in the "
            "pre-train network; give a larger --input-size"
        )
    return kinds.pop()


def _kinds(array: np.ndarray, factors: Sequence[Factor]) -> set[str]:
    """The kinds of all resized axes of a table; 'none' where its numbers lie on no line."""
    found: set[str] = set()
    for axis, factor in enumerate(factors):
        if isinstance(factor, JoinedFactor):
            # Each part belongs to a map of its own: cut it out and look at it by itself.
            ends = list(accumulate(dimension_sizes(part)[0] for part in factor.parts))
            for part, piece in zip(factor.parts, np.split(array, ends[:-1], axis), strict=True):
                sizes = [factor_sizes(each)[0] for each in part]
                piece = piece.reshape(*array.shape[:axis], *sizes, *array.shape[axis + 1 :])
                found |= _kinds(piece, [*factors[:axis], *part, *factors[axis + 1 :]])
            return found
    for axis, (target, pretrain) in enumerate(map(factor_sizes, factors)):
        if target == pretrain:
            continue
        steps = np.diff(array, axis=axis)
        if not steps.any():
            continue  # the same along this axis, whatever the kind
        if pretrain == 1:
            found.add("one pixel")
        elif target >= _SMALLEST_LINE:
            found.add(_line_kind(np.moveaxis(steps, axis, 0)))
    return found


def _line_kind(steps: np.ndarray) -> str:
    """The kind of lines with these steps along the first axis; 'none' for no lines."""
    step = np.abs(steps).max()
    if np.abs(steps - steps[:1]).max() > _OFF_LINE * step:
        return "none"
    return "pixels" if step >= 1 - _OFF_LINE else "centres"
