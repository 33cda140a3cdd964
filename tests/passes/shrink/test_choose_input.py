"""The input size follows from the first kernel, the strides, and operators that cut blocks."""

from __future__ import annotations

import pytest

from graphscale.passes.shrink.choose_input import choose_input
from graphscale.passes.shrink.choose_kernels import choose_kernels
from graphscale.passes.spatial.dimensions import single_size
from tests.passes.small_graphs import analyzed, graph, value


def chosen(nodes: str, size: int, **weights: object) -> int:
    analysis = analyzed(graph(nodes, f"float[1,3,{size},{size}] x", **weights))
    height = single_size(analysis.of(value(analysis, "x"))[2])
    return choose_input(analysis, choose_kernels(analysis), height)


@pytest.mark.parametrize(("kernel", "size", "expected"), [(11, 231, 147), (7, 224, 160)])
def test_the_papers_inputs(kernel: int, size: int, expected: int) -> None:
    assert chosen("y = Conv <strides=[4,4]> (x, w)", size, w=(4, 3, kernel, kernel)) == expected


def test_a_total_stride_that_divides_the_size() -> None:
    """Five times a stride of 2: 224·2/3 would be 149.3, 160 is a multiple of 32 and near enough."""
    nodes = "c0 = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)"
    for i in range(3):
        nodes += f"c{i + 1} = Conv <pads=[1,1,1,1], strides=[2,2]> (c{i}, v)"
    nodes += "y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c3)"
    assert chosen(nodes, 224, w=(4, 3, 3, 3), v=(4, 4, 3, 3)) == 160


def test_no_stride_leaves_the_ratio() -> None:
    assert chosen("y = Conv <pads=[1,1,1,1]> (x, w)", 224, w=(4, 3, 3, 3)) == 149


def test_blocks_need_a_multiple() -> None:
    nodes = "s = SpaceToDepth <blocksize=8> (x) y = Conv <pads=[1,1,1,1]> (s, w)"
    assert chosen(nodes, 64, w=(4, 192, 3, 3)) % 8 == 0


def test_patches_fill_the_image() -> None:
    """64·2/3 is 42.7; of 40 pixels, 8 would belong to no patch of 16."""
    assert chosen("y = Conv <strides=[16,16]> (x, w)", 64, w=(4, 3, 16, 16)) == 48


def test_a_usual_ratio_where_no_kernel_shrinks() -> None:
    assert chosen("y = Conv (x, w)", 30, w=(4, 3, 1, 1)) == 20


def test_blocks_behind_strides_that_the_size_must_divide() -> None:
    """Five strides and blocks of two pixels: 192 is the multiple of 64 that is nearest to 170.7."""
    nodes = "c0 = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)"
    for i in range(4):
        nodes += f"c{i + 1} = Conv <pads=[1,1,1,1], strides=[2,2]> (c{i}, v)"
    nodes += "y = SpaceToDepth <blocksize=2> (c4)"
    analysis = analyzed(graph(nodes, "float[1,3,256,256] x", w=(4, 3, 3, 3), v=(4, 4, 3, 3)))
    height = single_size(analysis.of(value(analysis, "x"))[2])
    kernels = choose_kernels(analysis)
    assert choose_input(analysis, kernels, height) == 160
    assert choose_input(analysis, kernels, height, divides=True) == 192
