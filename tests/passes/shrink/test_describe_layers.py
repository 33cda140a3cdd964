"""Multiplications of each layer, counted by hand."""

from __future__ import annotations

import numpy as np

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


def test_sums_of_products_by_other_operators() -> None:
    """An Einsum counts as the MatMul that computes the same, a GRU as its products of matrices."""
    conv = "c = Conv <pads=[1,1,1,1]> (x, w)"
    einsum = described(
        conv + ' y = Einsum <equation="nchw,kchw->nk"> (c, v)', w=(4, 3, 3, 3), v=(5, 4, 32, 32)
    )
    matmul = described(conv + " f = Flatten (c) y = MatMul (f, v)", w=(4, 3, 3, 3), v=(4096, 5))
    for layers in (einsum, matmul):
        assert layers["v"].target_multiplications == 5 * 4 * 32 * 32
        assert layers["v"].pretrain_multiplications == 5 * 4 * 20 * 20
        assert layers["v"].left_unscaled is None
    nodes = """
        t = Transpose <perm=[3,0,1,2]> (c)
        s = Reshape (t, flat)
        y, h = GRU <hidden_size=6> (s, v, r)
    """
    sizes = {"flat": np.array([0, 0, -1]), "v": (1, 18, 4 * 32), "r": (1, 18, 6)}
    gru = described(conv + nodes, w=(4, 3, 3, 3), **sizes)["v"]
    assert gru.target_multiplications == 32 * 18 * (4 * 32 + 6)
    assert gru.pretrain_multiplications == 20 * 18 * (4 * 20 + 6)
