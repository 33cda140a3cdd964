"""Fresh weights have the right variance; untrained networks are recognized."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.passes.shrink.initialize import initialize, is_trained
from tests.passes.small_graphs import graph

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
