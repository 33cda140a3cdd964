"""Indices that look up a value for the relative position of two pixels.

Networks with relative positions hold a table with a value for each offset between two pixels, and
an integer tensor that says for each pair of pixels where in the table its value stands. The table
is trained; the indices follow from the sizes of the maps alone, in one of three ways (`KINDS`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 'offsets': a value for each offset, the most negative ones first, row by row (as in Swin).
# 'distances': a value for each pair of distances along height and width (as in LeViT).
# 'token offsets': as 'offsets', with a class token before the pixels, and three more values: from
# the token to a pixel, from a pixel to the token, and from the token to itself (as in BEiT).
KINDS = ("offsets", "distances", "token offsets")
TOKEN_VALUES = 3


def lookup_indices(kind: str, sizes: Sequence[int]) -> np.ndarray:
    """The index of each pair of pixels.

    Args:
        kind: Of `KINDS`.
        sizes: Height and width of the first pixel's map and of the second one's. The first map may
            be a part of the second one's pixels, every second row and column say.

    Returns:
        An integer array of shape `sizes`, or with a token (1 + height * width, 1 + height * width).
    """
    if kind == "token offsets":
        pixels = sizes[0] * sizes[1]
        values = (2 * sizes[0] - 1) * (2 * sizes[1] - 1)
        indices = np.full((1 + pixels, 1 + pixels), values + 2)
        indices[0, 1:], indices[1:, 0] = values, values + 1
        indices[1:, 1:] = lookup_indices("offsets", sizes).reshape(pixels, pixels)
        return indices
    rows, columns = (
        np.arange(first)[:, None] * -(-second // first) - np.arange(second)[None]
        for first, second in zip(sizes[:2], sizes[2:])
    )
    if kind == "offsets":
        rows, columns = rows + sizes[2] - 1, columns + sizes[3] - 1
    else:
        rows, columns = np.abs(rows), np.abs(columns)
    _, width = table_sizes(kind, sizes[2:])
    return rows[:, None, :, None] * width + columns[None, :, None, :]


def offset_places(pixels: int) -> np.ndarray:
    """Where the number for each pair of pixels of a row stands among those of all offsets.

    Returns:
        An integer array of shape (pixels, pixels, 2): for each first and second pixel the row i of
        the first one, and the column j - i + pixels - 1 of the offset, of 2 * pixels - 1.
    """
    first, second = np.meshgrid(np.arange(pixels), np.arange(pixels), indexing="ij")
    return np.stack([first, second - first + pixels - 1], axis=-1)


def table_sizes(kind: str, sizes: Sequence[int]) -> tuple[int, int]:
    """How many values the table has along height and width, for a map of these sizes.

    Those of a class token come after them.
    """
    height, width = sizes
    return (height, width) if kind == "distances" else (2 * height - 1, 2 * width - 1)
