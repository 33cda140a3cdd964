"""Dimensions as products and sums of factors: ties, regrouping, pre-train sizes."""

from __future__ import annotations

import pytest

from graphscale.passes.spatial.dimensions import (
    DimensionFactor,
    SpatialSize,
    fixed,
    following,
    moves,
    pretrain_size,
    regroup,
    section,
    single_size,
    sizes_in,
    target_size,
    tie_dims,
    total,
)

HEIGHT, WIDTH = SpatialSize(0, 8), SpatialSize(1, 6)
MAP = (fixed(1), fixed(4), following(HEIGHT), following(WIDTH))


def test_sizes_in_both_networks() -> None:
    solved = {HEIGHT: 5, WIDTH: 4}
    flat = (*fixed(4), *following(HEIGHT), *following(WIDTH))
    assert (target_size(flat), pretrain_size(flat, solved)) == (4 * 8 * 6, 4 * 5 * 4)
    joined = (DimensionFactor(4 * 48 + 3, parts=(flat, fixed(3))),)
    assert (target_size(joined), pretrain_size(joined, solved)) == (195, 83)
    assert moves(joined)
    assert list(sizes_in(joined)) == [HEIGHT, WIDTH]
    assert single_size(joined) is None
    assert single_size(following(HEIGHT)) is HEIGHT


def test_one_pixel_never_moves() -> None:
    assert fixed(1) == following(SpatialSize(0, 1)) == ()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 192), ((), (*fixed(4), *following(HEIGHT), *following(WIDTH)))),
        ((4, 48), (fixed(4), (*following(HEIGHT), *following(WIDTH)))),
        ((1, 2, 2, 8, 6), ((), fixed(2), fixed(2), following(HEIGHT), following(WIDTH))),
        ((1, 4, 1, 8, 6), ((), fixed(4), (), following(HEIGHT), following(WIDTH))),
        ((1, 4, 4, 12), None),  # would cut the height
        ((1, 4, 2, 4, 6), None),
    ],
)
def test_regrouping(shape: tuple[int, ...], expected: tuple | None) -> None:
    assert regroup(MAP, shape) == expected


def test_tied_sizes_have_one_root() -> None:
    sizes = [SpatialSize(0, 8) for _ in range(4)]
    assert tie_dims(following(sizes[0]), following(sizes[1]))
    assert tie_dims(following(sizes[2]), following(sizes[3]))
    assert tie_dims(following(sizes[1]), following(sizes[2]))
    assert len({size.root for size in sizes}) == 1


def test_what_cannot_be_tied() -> None:
    height = following(SpatialSize(0, 8))
    assert not tie_dims(height, fixed(8))
    assert not tie_dims(height, following(SpatialSize(0, 9)))
    assert tie_dims(fixed(8), fixed(8))
    assert tie_dims(fixed(8), fixed(9))  # of no interest: neither moves


def test_sections_of_a_sum() -> None:
    pixels = (*following(HEIGHT), *following(WIDTH))
    tokens = total(fixed(3), pixels, fixed(2))
    assert section(tokens, 3, 51) == pixels
    assert section(tokens, 1, 3) == fixed(2)
    assert section(tokens, 2, 52) == total((), pixels, ())
    assert section(tokens, 0, 10) is None
    assert section(pixels, 0, 10) is None
    solved = {HEIGHT: 5, WIDTH: 4}
    pooled = (DimensionFactor(6, parts=(pixels,), pooled=8),)
    assert (pretrain_size(pooled, solved), section(pooled, 0, 6)) == (2, None)
    assert not tie_dims(pooled, total(pixels))


def test_sums_within_sums() -> None:
    inner = total(fixed(2), following(HEIGHT))
    assert section(total(inner, fixed(1)), 2, 10) == following(HEIGHT)
