"""The phase between two grids, measured in an image of the first input's size."""

from __future__ import annotations

from graphscale.core.plan import Grid
from graphscale.passes.spatial.dimensions import SpatialSize
from graphscale.passes.spatial.geometry import frames, phase


def test_grids_in_the_middle_have_no_phase() -> None:
    """Every second pixel of 32 from 0.5 on, and of 20 from 0.5 on."""
    assert phase((Grid(0.5, 2.0, 16), Grid(0.5, 2.0, 10)), (32, 20)) == 0


def test_half_a_pixel_of_the_map() -> None:
    """The pre-train map stands an input pixel to the right, which is half a pixel of the map."""
    assert phase((Grid(0.5, 2.0, 16), Grid(1.5, 2.0, 10)), (32, 20)) == 0.5


def test_the_first_input_is_the_image() -> None:
    sizes = {SpatialSize(0, 32): 20, SpatialSize(1, 48): 30, SpatialSize(0, 64): 41}
    assert frames(sizes) == {0: (32, 20), 1: (48, 30)}
