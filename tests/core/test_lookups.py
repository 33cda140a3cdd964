"""The indices of relative positions, pair by pair, and as networks build them."""

import itertools

import numpy as np
import pytest

from graphscale.core.lookups import lookup_indices, offset_places, table_sizes


@pytest.mark.parametrize("sizes", [(2, 3), (4, 4), (1, 5)])
def test_offsets_number_the_table_row_by_row(sizes) -> None:
    found = lookup_indices("offsets", (*sizes, *sizes))
    rows, columns = table_sizes("offsets", sizes)
    assert (rows, columns) == (2 * sizes[0] - 1, 2 * sizes[1] - 1)
    table = np.arange(rows * columns).reshape(rows, columns)
    for y, x, v, u in itertools.product(*map(range, (*sizes, *sizes))):
        assert found[y, x, v, u] == table[y - v + sizes[0] - 1, x - u + sizes[1] - 1]


@pytest.mark.parametrize(
    ("first", "second"), [((3, 4), (3, 4)), ((3, 2), (5, 4)), ((7, 7), (14, 14))]
)
def test_distances_of_every_pixel_or_every_second_one(first, second) -> None:
    found = lookup_indices("distances", (*first, *second))
    table = np.arange(second[0] * second[1]).reshape(second)
    step = 1 if first == second else 2
    for y, x, v, u in itertools.product(*map(range, (*first, *second))):
        assert found[y, x, v, u] == table[abs(step * y - v), abs(step * x - u)]


def test_places_of_offsets_in_a_row() -> None:
    assert offset_places(2).tolist() == [[[0, 1], [0, 2]], [[1, 0], [1, 1]]]


def test_offsets_behind_a_token() -> None:
    """As the networks build them: the last three values belong to the token."""
    found = lookup_indices("token offsets", (2, 3, 2, 3))
    pixels = lookup_indices("offsets", (2, 3, 2, 3)).reshape(6, 6)
    values = 3 * 5
    assert table_sizes("token offsets", (2, 3)) == (3, 5)
    np.testing.assert_array_equal(found[1:, 1:], pixels)
    assert (found[0, 1:] == values).all()
    assert (found[1:, 0] == values + 1).all()
    assert found[0, 0] == values + 2
