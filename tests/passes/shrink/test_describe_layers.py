"""Multiplications of each layer, counted by hand."""

from __future__ import annotations

from graphscale.passes.shrink.choose_kernels import choose_kernels
from graphscale.passes.shrink.describe_layers import describe_layers
from tests.passes.small_graphs import analyzed, graph, solved


def described(nodes: str, **weights: object) -> dict:
    analysis = analyzed(graph(nodes, **weights))
    layers = describe_layers(analysis, choose_kernels(analysis), solved(analysis, 20))
    return {layer.weight: layer for layer in layers}


def test_each_kind_of_layer() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        g = Conv <group=4, pads=[2,2,2,2]> (c, depthwise)
        t = ConvTranspose <strides=[2,2]> (g, up)
        d = Conv <pads=[1,1,1,1], strides=[2,2]> (t, down)
        f = Flatten (d)
        h = Gemm <transB=1> (f, fc)
        y = MatMul (h, last)
    """
    found = described(
        nodes,
        w=(4, 3, 3, 3),
        depthwise=(4, 1, 5, 5),
        up=(4, 2, 2, 2),
        down=(4, 2, 3, 3),
        fc=(7, 1024),
        last=(7, 5),
    )
    w = found["w"]
    assert (w.target_kernel, w.pretrain_kernel) == ([3, 3], [2, 2])
    assert (w.target_size, w.pretrain_size) == ([16, 16], [10, 10])
    assert w.target_multiplications == 4 * 3 * 9 * 16 * 16
    assert w.pretrain_multiplications == 4 * 3 * 4 * 10 * 10
    assert found["depthwise"].target_multiplications == 4 * 1 * 25 * 16 * 16
    # Each pixel of a transposed convolution's input meets each tap.
    assert found["up"].target_multiplications == 4 * 2 * 4 * 16 * 16
    assert found["up"].left_unscaled == "its kernel has no smaller one in the table"
    assert found["fc"].target_multiplications == 7 * 1024
    assert found["fc"].pretrain_multiplications == 7 * 4 * 10 * 10
    assert found["fc"].left_unscaled is None
    assert found["last"].target_multiplications == found["last"].pretrain_multiplications == 35
    assert found["last"].left_unscaled == "it reads no feature map"


def test_a_covering_kernel_is_counted_as_large_as_its_map() -> None:
    layer = described("y = Conv (x, w)", w=(5, 3, 32, 32))["w"]
    assert (layer.target_kernel, layer.pretrain_kernel) == ([32, 32], [20, 20])
    assert layer.pretrain_multiplications == 5 * 3 * 20 * 20
