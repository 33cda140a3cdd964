"""Tables of the logarithms of all offsets between two pixels, from which layers compute biases.

The second Swin (arXiv 2111.09883, Eq. 4) and its kin give the offsets along height and width, on a
logarithmic scale, to a small network, and look its outputs up for each pair of pixels. Nothing
trains the table: its numbers follow from the size of the map, in one of two ways (`KINDS`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 'log parts': the largest offset is 8, so that a map of any size has the same range.
# 'log pixels': an offset of one pixel is the same number in maps of all sizes.
KINDS = ("log parts", "log pixels")
_RANGE = 8


def log_offsets_kind(table: np.ndarray, sizes: Sequence[int]) -> str | None:
    """By which of `KINDS` a table follows from its sizes; None for any other table.

    Args:
        table: Its numbers.
        sizes: The sizes of its dimensions; those of one are left out of account.
    """
    long = [size for size in sizes if size > 1]
    if len(long) != 3 or long[2] != 2 or any(size % 2 == 0 for size in long[:2]):
        return None
    table = table.reshape(long)
    for kind in KINDS:
        if np.allclose(table, log_offsets(kind, table, long), rtol=1e-3, atol=1e-5):
            return kind
    return None


def log_offsets(kind: str, table: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The table for another map.

    Args:
        kind: Of `KINDS`.
        table: A table of this kind: a row for each offset along height, from the most negative one
            on, a column for each along width, and in each place the two logarithms.
        sizes: Those of the table that is wanted.
    """
    lines = [
        _line(kind, np.moveaxis(table, axis, 0)[:, 0, axis].astype(np.float64), sizes[axis])
        for axis in (0, 1)
    ]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


def _line(kind: str, given: np.ndarray, size: int) -> np.ndarray:
    """The numbers of `size` offsets along an axis on which a table of this kind has the `given`."""
    largest = size // 2
    offsets = np.arange(-largest, largest + 1)
    if kind == "log parts":
        offsets, base = offsets * (_RANGE / largest), _RANGE
    else:
        one = given[given.size // 2 + 1]  # the number of an offset of one pixel
        base = np.e if abs(one - np.log(2)) < 1e-3 else _RANGE
        offsets = offsets * (base**one - 1)
    return np.sign(offsets) * np.log1p(np.abs(offsets)) / np.log(base)
