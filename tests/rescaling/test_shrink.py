"""Shrinking makes a new network, whose weights are resized or drawn."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.core.plan import Plan
from graphscale.core.resampling import shrink_matrix
from graphscale.rescaling.shrink import shrink_model
from tests.passes.small_graphs import graph

NODES = "c = Conv <pads=[1,1,1,1]> (x, w) y = Conv (c, one)"


def model(**weights: object) -> ir.Model:
    return ir.from_proto(graph(NODES, **({"w": (4, 3, 3, 3), "one": (4, 4, 1, 1)} | weights)))


def array(model: ir.Model, name: str) -> np.ndarray:
    return model.graph.initializers[name].const_value.numpy()


def test_a_trained_network_is_resized() -> None:
    target = model()
    pretrain, plan = shrink_model(target)
    assert plan.init == "resize"
    assert Plan.of(pretrain) == plan
    matrix = shrink_matrix(3, 2)
    expected = np.einsum("sh,tw,oihw->oist", matrix, matrix, array(target, "w"))
    np.testing.assert_allclose(array(pretrain, "w"), expected, atol=1e-6)
    np.testing.assert_array_equal(array(pretrain, "one"), array(target, "one"))


def test_the_target_is_left_as_it_is() -> None:
    target = model()
    before = ir.to_proto(target).SerializeToString(deterministic=True)
    shrink_model(target, init="fresh")
    assert ir.to_proto(target).SerializeToString(deterministic=True) == before


def test_an_untrained_network_gets_fresh_kernels_where_they_shrink() -> None:
    fills = {
        "w": np.full((4, 3, 3, 3), 0.5, np.float32),
        "one": np.full((4, 4, 1, 1), 0.25, np.float32),
    }
    pretrain, plan = shrink_model(model(**fills))
    assert plan.init == "fresh"
    assert np.ptp(array(pretrain, "w")) > 0
    assert (array(pretrain, "one") == 0.25).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_fresh_weights_follow_the_seed(seed: int) -> None:
    first, second = (shrink_model(model(), init="fresh", seed=seed)[0] for _ in range(2))
    other, _ = shrink_model(model(), init="fresh", seed=seed + 1)
    np.testing.assert_array_equal(array(first, "one"), array(second, "one"))
    assert not np.array_equal(array(first, "one"), array(other, "one"))


def test_what_is_refused() -> None:
    with pytest.raises(graphscale.GraphScaleError, match="unknown initialisation 'zero'"):
        shrink_model(model(), init="zero")
    broken = np.full((4, 3, 3, 3), np.nan, np.float32)
    with pytest.raises(graphscale.GraphScaleError, match="weight 'w' holds NaN"):
        shrink_model(model(w=broken))
    signalling = np.full((4, 3, 3, 3), 0x7F81, np.uint16).view(ml_dtypes.bfloat16)
    with np.errstate(invalid="raise"), pytest.raises(graphscale.GraphScaleError, match="'w' holds"):
        shrink_model(model(w=signalling))
    large = np.full((4, 3, 3, 3), 3e38, np.float32)  # found out while the message is made
    with pytest.raises(graphscale.GraphScaleError, match="weight 'w' holds numbers that, resized"):
        graphscale.shrink(ir.to_proto(model(w=large)))
