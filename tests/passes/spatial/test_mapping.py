"""The parameters that convolutions and pooling share: spans, smaller kernels, dilations."""

from __future__ import annotations

import pytest

from graphscale.passes.spatial.mapping import SpatialMapping
from graphscale.passes.spatial.rules.window import Window
from tests.passes.small_graphs import analyzed, graph, node


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"), [(3, 1, 2), (3, 2, 2), (3, 3, 3), (7, 4, 5), (2, 2, 2)]
)
def test_a_kernel_that_does_not_overlap_stays(kernel: int, stride: int, expected: int) -> None:
    assert Window(kernel, stride, 1, 0, 0).smaller_kernel(None) == expected


def test_the_users_table_comes_first() -> None:
    assert Window(3, 1, 1, 0, 0).smaller_kernel({3: 1}) == 1


def test_another_kernel_keeps_all_else() -> None:
    assert Window(5, 2, 1, 2, 1).with_kernel(3, None) == Window(3, 2, 1, 2, 1)


def test_mappings_of_a_node() -> None:
    analysis = analyzed(graph("y = Conv <pads=[1,1,1,1], strides=[2,1]> (x, w)", w=(4, 3, 3, 3)))
    height, width = analysis.mappings[node(analysis, "Conv")]
    assert isinstance(height, SpatialMapping)
    assert [(each.axis, each.dimension) for each in (height, width)] == [(0, 2), (1, 3)]
    assert (height.source.target, height.result.target) == (32, 16)
    assert (width.source.target, width.result.target) == (32, 32)
    assert analysis.producers[height.result] == (height,)
    assert analysis.consumers[height.source] == (height,)


def test_options_are_found_once_for_equal_mappings() -> None:
    analysis = analyzed(graph("y = Conv <pads=[1,1,1,1]> (x, w)", w=(4, 3, 3, 3)))
    height, width = analysis.mappings[node(analysis, "Conv")]
    goal = height.target.with_kernel(2, None)
    assert height.options(goal, 20, [19, 20, 21]) is width.options(goal, 20, {21, 20, 19})
