"""Fresh weights have the right variance; untrained networks are recognized."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.passes.shrink.initialize import initialize, is_trained
from tests.passes.small_graphs import constant, graph, plan_in

NODES = """
    c = Conv <pads=[1,1,1,1]> (x, w, b)
    n = BatchNormalization (c, scale, bias, mean, var)
    t = ConvTranspose <group=2> (n, u)
    g = GlobalAveragePool (t)
    f = Flatten (g)
    y = Gemm <transB=1> (f, v)
"""


def network(**changes: object) -> ir.Model:
    weights = {
        "w": (64, 3, 3, 3),
        "b": (64,),
        "scale": (64,),
        "bias": (64,),
        "mean": (64,),
        "var": np.ones(64, np.float32) * 2,
        "u": (64, 16, 4, 4),
        "v": (100, 32),
    }
    return ir.from_proto(graph(NODES, **(weights | changes)))


def array(model: ir.Model, name: str) -> np.ndarray:
    return model.graph.initializers[name].const_value.numpy()


def test_variance_two_over_the_fan_in() -> None:
    model = network()
    drawn = initialize(model, None, seed=3)
    assert drawn == ["w", "u", "v"]
    for name, fan_in in {"w": 27, "u": 64 * 16 // 2, "v": 32}.items():
        weight = array(model, name)
        assert weight.var() == pytest.approx(2 / fan_in, rel=0.1)
        assert abs(weight.mean()) < 0.1 * weight.std()
    for name, fill in {"b": 0, "scale": 1, "bias": 0, "mean": 0, "var": 1}.items():
        assert (array(model, name) == fill).all()


def test_only_named_weights_are_drawn() -> None:
    model, before = network(), network()
    assert initialize(model, {"u"}, seed=3) == ["u"]
    assert not np.array_equal(array(model, "u"), array(before, "u"))
    for name in ("w", "v", "scale", "mean"):
        np.testing.assert_array_equal(array(model, name), array(before, name))


def test_a_seed_gives_the_same_numbers() -> None:
    first, second, other = network(), network(), network()
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        initialize(model, None, seed)
    np.testing.assert_array_equal(array(first, "w"), array(second, "w"))
    assert not np.array_equal(array(first, "w"), array(other, "w"))


def test_statistics_and_fills_show_whether_it_is_trained() -> None:
    assert is_trained(network())
    start = {"mean": np.zeros(64, np.float32), "var": np.ones(64, np.float32)}
    assert not is_trained(network(**start))
    fills = {
        name: np.full(shape, 0.5, np.float32)
        for name, shape in {"w": (64, 3, 3, 3), "u": (64, 16, 4, 4), "v": (100, 32)}.items()
    }
    assert not is_trained(network(**fills))


def test_the_fan_in_of_a_weight_on_the_left() -> None:
    """w·x sums over the last dimension of w; with transA, over its first."""
    nodes = """
        c = Conv (x, k)
        d = MatMul (w, c)
        f = Flatten (d)
        t = Transpose <perm=[1, 0]> (f)
        y = Gemm <transA=1> (u, t)
    """
    shapes = {"k": (2, 3, 1, 1), "w": (400, 32), "u": (800, 300)}
    model = ir.from_proto(graph(nodes, **shapes))
    initialize(model, None, seed=0)
    assert array(model, "w").std() == pytest.approx((2 / 32) ** 0.5, rel=0.05)
    assert array(model, "u").std() == pytest.approx((2 / 800) ** 0.5, rel=0.05)


def test_every_sum_of_products_has_its_fan_in() -> None:
    """An Einsum sums over what its result lacks; a gate over the features and the hidden state."""
    nodes = """
        k = Transpose <perm=[3,2,0,1]> (hwio)
        c = Conv (x, k)
        e = Einsum <equation="nchw,kchw->nk"> (c, v)
        u = Unsqueeze (e, axes)
        y, h, s = LSTM <hidden_size=50> (u, w, r, b)
    """
    shapes = {
        "hwio": (5, 5, 3, 2),
        "v": (60, 2, 28, 28),
        "axes": np.array([0]),
        "w": (1, 200, 60),
        "r": (1, 200, 50),
        "b": (1, 400),
    }
    model = ir.from_proto(graph(nodes, **shapes))
    before = ir.from_proto(graph(nodes, **shapes))
    assert initialize(model, None, seed=0) == ["hwio", "v", "w", "r"]
    for name, fan_in in {"hwio": 3 * 25, "v": 2 * 28 * 28, "w": 110, "r": 110}.items():
        assert array(model, name).std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
        assert not np.array_equal(array(model, name), array(before, name))
    assert not array(model, "b").any()


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ('y = Einsum <equation="nchw,kchw->nk"> (c, v)', {"v": (5, 4, 16, 16)}),
        (
            "t = Transpose <perm=[3,0,1,2]> (c) s = Reshape (t, flat)"
            "  y, h = GRU <hidden_size=6> (s, v, r)",
            {"v": (1, 18, 64), "r": (1, 18, 6), "flat": np.array([0, 0, -1])},
        ),
    ],
)
def test_every_interface_is_drawn(nodes: str, weights: dict) -> None:
    conv = "c = Conv <pads=[1,1,1,1]> (x, w)"
    model = graph(conv + nodes, "float[1,1,16,16] x", w=(4, 1, 3, 3), **weights)
    resized = graphscale.shrink(model, init="resize", input_size=8)
    fresh = graphscale.shrink(model, init="fresh", input_size=8)
    for weight in plan_in(fresh).weights:
        numbers = constant(fresh, weight.name)
        assert not np.isclose(numbers, constant(resized, weight.name)).any()
