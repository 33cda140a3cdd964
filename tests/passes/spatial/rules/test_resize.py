"""Resize: grids of each coordinate mode, and the scales or sizes that are written."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.resize import Resampling
from tests.passes.small_graphs import constant, graph, run


@pytest.mark.parametrize(
    ("mode", "origin", "pitch"),
    [
        ("half_pixel", -0.25, 0.5),
        ("pytorch_half_pixel", -0.25, 0.5),
        ("half_pixel_symmetric", -0.25, 0.5),
        ("asymmetric", 0.0, 0.5),
        ("align_corners", 0.0, 7 / 15),
    ],
)
def test_grid(mode: str, origin: float, pitch: float) -> None:
    """8 pixels become 16: where ONNX's formula of the mode finds x_original for 0 and 1."""
    grid = Resampling(8, 16, mode).grid(Grid(0.0, 1.0, 8), 16)
    assert (grid.origin, grid.pitch) == pytest.approx((origin, pitch))


def test_another_ratio_costs_more() -> None:
    given = Resampling(16, 32, "half_pixel")
    options = given.options(Change(given, 16, 32), 10, frozenset({20, 21}))
    costs = {option.size: option.cost for option in options}
    assert costs[20] == 0
    assert costs[21] > 1


def test_sizes_and_scales_give_the_same_map() -> None:
    head = "c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)"
    by_scales = graph(
        head + "y = Resize (c, , s)", w=(4, 3, 3, 3), s=np.array([1, 1, 2, 2], np.float32)
    )
    by_sizes = graph(head + "y = Resize (c, , , s)", w=(4, 3, 3, 3), s=np.array([1, 4, 32, 32]))
    shrunk = [
        graphscale.shrink(model, init="resize", input_size=20) for model in (by_scales, by_sizes)
    ]
    np.testing.assert_array_equal(constant(shrunk[0], "s"), [1, 1, 2, 2])
    np.testing.assert_array_equal(constant(shrunk[1], "s"), [1, 4, 20, 20])
    np.testing.assert_array_equal(*(run(model)["y"] for model in shrunk))


def test_one_pixel_is_spread_over_the_map_it_meets() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        g = GlobalAveragePool (c)
        r = Resize <mode="linear"> (g, , , s)
        y = Concat <axis=1> (c, r)
    """
    target = graph(nodes, w=(4, 3, 3, 3), s=np.array([1, 4, 32, 32]))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    found = run(pretrain)["y"]
    np.testing.assert_allclose(
        found[0, 4:],
        np.broadcast_to(found[0, :4].mean((1, 2), keepdims=True), (4, *found.shape[2:])),
        atol=1e-5,
    )


def test_a_crop_while_resizing_is_refused() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        y = Resize <coordinate_transformation_mode="tf_crop_and_resize"> (c, roi, , s)
    """
    roi = np.array([0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8], np.float32)
    target = graph(nodes, w=(4, 3, 3, 3), roi=roi, s=np.array([1, 4, 32, 32]))
    with pytest.raises(graphscale.GraphScaleError, match="crops while it resizes"):
        graphscale.shrink(target)


def test_a_table_that_the_graph_resizes_to_a_map_follows_it() -> None:
    """The table keeps its 8×8 positions; the graph resizes it to the pre-train network's map."""
    target = graph(
        """
        c = Conv <pads=[1,1,1,1]> (x, w)
        spread = Resize <mode="linear"> (table, none, none, sizes)
        y = Add (c, spread)
        """,
        w=(2, 3, 3, 3),
        table=(1, 2, 8, 8),
        none=np.zeros(0, np.float32),
        sizes=np.array([1, 2, 32, 32]),
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert constant(pretrain, "table").shape == (1, 2, 8, 8)
    assert run(pretrain)["y"].shape == tuple(constant(pretrain, "sizes"))
    assert constant(pretrain, "sizes")[2] in (19, 20, 21)
