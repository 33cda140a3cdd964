"""The mask of attention in shifted windows, as Swin has it.

A map is rolled by half a window before it is cut into windows. The last window of each axis then
holds pixels from both ends of the map, which must not attend to each other: a large negative number
is added to the scores of such pairs, 0 to all others. The numbers follow from the sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KIND = "shifted windows"


def crosses_border(sizes: Sequence[int]) -> np.ndarray:
    """Which pairs of a window's pixels come from opposite ends of the map.

    Args:
        sizes: Windows along height and width, a window's height and width, and these two again.

    Returns:
        Booleans of shape `sizes`. An axis with a single window is not shifted.
    """
    rows, columns = (
        end[:, :, None] != end[:, None, :] for end in map(_other_end, sizes[:2], sizes[2:4])
    )
    return rows[:, None, :, None, :, None] | columns[None, :, None, :, None, :]


def _other_end(windows: int, pixels: int) -> np.ndarray:
    """For each pixel of each window on one axis, whether it comes from the map's other end."""
    found = np.zeros((windows, pixels), bool)
    if windows > 1:
        found[-1, pixels - pixels // 2 :] = True
    return found
