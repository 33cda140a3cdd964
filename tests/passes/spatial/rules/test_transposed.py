"""Transposed convolutions: grids, options and what is written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.transposed import TransposedWindow
from tests.passes.small_graphs import attribute, constant, graph, run


def test_grid_undoes_a_convolutions() -> None:
    """A kernel of 4 taps with stride 2, of whose output one pixel is cut on each side."""
    assert TransposedWindow(4, 2, 1, 1, 1).grid(Grid(0.5, 2.0, 16), 32) == Grid(0.0, 1.0, 32)


def test_options_reach_a_size_by_cutting_or_padding() -> None:
    given = TransposedWindow(4, 2, 1, 1, 1)
    options = list(given.options(Change(given, 16, 32), 10, frozenset({20})))
    assert min(options, key=lambda option: option.cost).parameters == given
    for option in options:
        window = option.parameters
        assert 2 * 9 + window.span + window.output_padding - window.begin - window.end == 20
        assert 0 <= window.output_padding < 2


@pytest.mark.parametrize(("kernel", "chosen"), [(2, 2), (3, 2), (4, 3), (5, 3)])
def test_no_kernel_becomes_smaller_than_its_stride(kernel: int, chosen: int) -> None:
    assert TransposedWindow(kernel, 2, 1, 0, 0).smaller_kernel(None) == chosen
    assert TransposedWindow(kernel, 3, 1, 0, 0).smaller_kernel(None) >= min(kernel, 3)


def test_output_shape_is_written_out() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        y = ConvTranspose <strides=[2,2], output_shape=[32,32]> (c, v)
    """
    target = graph(nodes, w=(4, 3, 3, 3), v=(4, 2, 4, 4))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    onnx.checker.check_model(pretrain, full_check=True)
    assert attribute(pretrain, "ConvTranspose", "output_shape") is None
    assert constant(pretrain, "v").shape == (4, 2, 3, 3)
    assert run(pretrain)["y"].shape == (1, 2, 20, 20)
    assert np.isfinite(run(graphscale.grow(pretrain))["y"]).all()
