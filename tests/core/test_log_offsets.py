"""The logarithms of offsets, number by number, as the second Swin's paper defines them."""

import itertools
import math

import numpy as np
import pytest

from graphscale.core.log_offsets import log_offsets, log_offsets_kind


def parts(height: int, width: int) -> np.ndarray:
    """Offsets as parts of the largest one, which is 8, on a scale of logarithms to base 8."""
    table = np.zeros((2 * height - 1, 2 * width - 1, 2))
    for y, x in itertools.product(range(2 * height - 1), range(2 * width - 1)):
        for at, (place, size) in enumerate(((y, height), (x, width))):
            offset = 8 * (place - size + 1) / (size - 1)
            table[y, x, at] = math.copysign(math.log(1 + abs(offset), 8), offset)
    return table


def pixels(height: int, width: int, one: float, base: float) -> np.ndarray:
    """Offsets in pixels, of which each counts as `one`."""
    table = np.zeros((2 * height - 1, 2 * width - 1, 2))
    for y, x in itertools.product(range(2 * height - 1), range(2 * width - 1)):
        for at, offset in enumerate((y - height + 1, x - width + 1)):
            table[y, x, at] = math.copysign(math.log(1 + one * abs(offset), base), offset)
    return table


def test_parts_of_a_map() -> None:
    given, wanted = parts(5, 4).astype(np.float32), parts(3, 2)
    assert log_offsets_kind(given[None], (1, 9, 7, 2)) == "log parts"
    np.testing.assert_allclose(log_offsets("log parts", given, (5, 3, 2)), wanted, rtol=1e-6)
    np.testing.assert_allclose(log_offsets("log parts", wanted, (9, 7, 2)), given, rtol=1e-6)


@pytest.mark.parametrize(("one", "base"), [(1, math.e), (8 / 11, 8)])
def test_pixels(one: float, base: float) -> None:
    """timm's own scale, and that of a network which was trained with windows of 12 pixels."""
    given, wanted = pixels(5, 4, one, base).astype(np.float32), pixels(3, 2, one, base)
    assert log_offsets_kind(given, (9, 7, 2)) == "log pixels"
    np.testing.assert_allclose(log_offsets("log pixels", given, (5, 3, 2)), wanted, rtol=1e-5)
    np.testing.assert_allclose(log_offsets("log pixels", wanted, (9, 7, 2)), given, rtol=1e-5)


def test_other_tables() -> None:
    line = np.linspace(-1, 1, 9)
    table = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    assert log_offsets_kind(table, (9, 9, 2)) is None
    assert log_offsets_kind(np.zeros((8, 8, 2)), (8, 8, 2)) is None
    assert log_offsets_kind(np.zeros((9, 9, 3)), (9, 9, 3)) is None
