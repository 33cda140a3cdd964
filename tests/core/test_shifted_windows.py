"""The mask of shifted windows against the way in which Swin's authors make it."""

import numpy as np
import pytest

from graphscale.core.shifted_windows import crosses_border


def regions(height: int, width: int, window: tuple[int, int]) -> np.ndarray:
    """Numbers the regions of a rolled map, as Swin's authors do."""
    numbers = np.zeros((height, width))
    shifts = [0 if size == side else side // 2 for size, side in zip((height, width), window)]
    parts = [
        (slice(0, -side), slice(-side, -shift), slice(-shift, None)) if shift else (slice(None),)
        for side, shift in zip(window, shifts)
    ]
    for count, (rows, columns) in enumerate((r, c) for r in parts[0] for c in parts[1]):
        numbers[rows, columns] = count
    return numbers


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [(28, 28, (7, 7)), (8, 12, (4, 4)), (15, 10, (5, 5)), (7, 14, (7, 7)), (6, 8, (3, 4))],
)
def test_as_swin_makes_it(height: int, width: int, window: tuple[int, int]) -> None:
    down, across = height // window[0], width // window[1]
    numbers = regions(height, width, window).reshape(down, window[0], across, window[1])
    flat = numbers.transpose(0, 2, 1, 3).reshape(down * across, -1)
    wanted = flat[:, :, None] != flat[:, None, :]
    assert np.array_equal(
        crosses_border([down, across, *window, *window]).reshape(wanted.shape), wanted
    )
