"""Kernels are chosen by table; some stay, for a reason that is told; shared weights agree."""

from __future__ import annotations

import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.passes.shrink.choose_kernels import ChosenKernels, choose_kernels
from tests.passes.small_graphs import analyzed, graph

CHAIN = """
    a = Conv <pads=[3,3,3,3], strides=[2,2]> (x, w7)
    b = Conv <pads=[1,1,1,1]> (a, w3)
    c = Conv (b, w1)
    d = Conv <pads=[0,3,0,3]> (c, w17)
    y = Conv <strides=[3,3]> (d, u3)
"""
SHAPES = {
    "w7": (4, 3, 7, 7),
    "w3": (4, 4, 3, 3),
    "w1": (4, 4, 1, 1),
    "w17": (4, 4, 1, 7),
    "u3": (4, 4, 3, 3),
}


def chosen(nodes: str = CHAIN, shapes: dict = SHAPES, **options: object) -> dict:
    """Kernel, or kernel and reason, by the number of the convolution."""
    kernels: ChosenKernels = choose_kernels(analyzed(graph(nodes, **shapes)), **options)
    return {
        node.outputs[0].name: (kernel, kernels.left_unscaled.get(node))
        for node, kernel in kernels.pretrain.items()
    }


def test_the_papers_table_and_reasons() -> None:
    assert chosen() == {
        "a": ((5, 5), None),
        "b": ((2, 2), None),
        "c": ((1, 1), "its kernel is one pixel"),
        "d": ((1, 5), None),
        "y": ((3, 3), "its kernel is no larger than its stride"),
    }


def test_a_table_and_names_to_keep() -> None:
    found = chosen(table={7: 3, 3: 3}, keep=["conv_3", "w1"])
    assert found["a"] == ((3, 3), None)
    assert found["b"] == ((3, 3), "its kernel has no smaller one in the table")
    assert found["c"] == ((1, 1), "kept by --keep w1")
    assert found["d"] == ((1, 7), "kept by --keep conv_3")


def test_a_name_to_keep_that_no_layer_has() -> None:
    with pytest.raises(GraphScaleError, match=r"no layer or weight has the name 'w5' of --keep"):
        chosen(keep=["w7", "w5"])
    nodes = "a = Conv (x, w) f = Flatten (a) y = MatMul (f, v)"
    shapes = {"w": (1, 3, 1, 1), "v": (1024, 2)}
    assert list(chosen(nodes, shapes, keep=["v", "matmul_*"])) == ["a"]  # not only convolutions


def test_what_is_decided_of_a_mapping() -> None:
    nodes = "y = Conv <pads=[4,1,4,1], dilations=[4,1]> (x, w)"
    analysis = analyzed(graph(nodes, w=(4, 3, 3, 3)))
    kernels = choose_kernels(analysis)
    (node,) = kernels.target
    goals = [kernels.goal(mapping) for mapping in analysis.mappings[node]]
    # 3 taps 4 apart span 9, which become 7: 2 taps 6 apart.
    assert [(goal.kernel, goal.dilation) for goal in goals] == [(2, 6), (2, 1)]
    # The analysis itself is left as it is.
    assert [mapping.target.kernel for mapping in analysis.mappings[node]] == [3, 3]


@pytest.mark.parametrize("stride", [1, 3])
def test_a_shared_weight_is_kept_where_one_layer_keeps_it(stride: int) -> None:
    nodes = f"""
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = Conv <strides=[{stride},{stride}]> (a, w)
        y = Relu (b)
    """
    reason = "it shares its weight with a layer that keeps it" if stride == 3 else None
    kernel = (3, 3) if stride == 3 else (2, 2)
    found = chosen(nodes, {"w": (3, 3, 3, 3)})
    assert found == {"a": (kernel, reason), "b": (kernel, reason)}


def test_a_computed_weight_stays() -> None:
    nodes = "v = Relu (given) y = Conv <pads=[1,1,1,1]> (x, v)"
    model = graph(nodes, "float[1,3,32,32] x, float[4,3,3,3] given")
    (entry,) = choose_kernels(analyzed(model)).left_unscaled.values()
    assert entry == "its weight is computed while the network runs"
