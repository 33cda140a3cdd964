"""Growing finds the plan: the one given, the checkpoint's own, or one made from the target."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.core.plan import METADATA_KEY, Plan
from graphscale.rescaling.grow import grow_model
from graphscale.rescaling.shrink import shrink_model
from tests.passes.small_graphs import graph

NODES = "c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w) f = Flatten (c) y = MatMul (f, v)"


def model() -> ir.Model:
    return ir.from_proto(graph(NODES, w=(4, 3, 3, 3), v=(1024, 5)))


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@pytest.mark.parametrize("by", ["metadata", "plan", "file", "target"])
def test_each_way_to_the_plan_gives_the_same_network(by: str, tmp_path) -> None:
    checkpoint, plan = shrink_model(model(), input_size=20)
    expected, growth, _ = grow_model(checkpoint.clone())
    assert (growth.resized, growth.copied) == (["w", "v"], [])
    given: dict = {}
    if by != "metadata":
        del checkpoint.metadata_props[METADATA_KEY]
    if by == "plan":
        given["plan"] = plan
    elif by == "file":
        plan.save(tmp_path / "x.plan.json")
        given["plan"] = tmp_path / "x.plan.json"
    elif by == "target":
        given["target"] = model()
    grown, _, _ = grow_model(checkpoint, **given)
    for name, weight in weights(expected).items():
        np.testing.assert_array_equal(weights(grown)[name], weight)


def test_a_target_beside_a_plan_must_be_the_plans() -> None:
    checkpoint, _ = shrink_model(model(), input_size=20)
    grown, _, _ = grow_model(checkpoint.clone(), target=model())
    assert weights(grown)["v"].shape == (1024, 5)
    other = ir.from_proto(graph(NODES, w=(4, 3, 5, 5), v=(1024, 5)))
    with pytest.raises(graphscale.GraphScaleError, match=r"another network .*'w'"):
        grow_model(checkpoint, target=other)
    stranger = ir.from_proto(graph("y = Conv (x, u)", u=(4, 3, 3, 3)))
    with pytest.raises(graphscale.GraphScaleError, match=r"another network .*'w'"):
        grow_model(checkpoint, target=stranger)


def test_a_weight_that_the_target_computes_is_none_of_its_tensors() -> None:
    nodes = "k = Mul (w, s) c = Conv (x, k) f = Conv (c, v) y = Relu (f)"

    def target() -> ir.Model:
        return ir.from_proto(graph(nodes, w=(4, 3, 3, 3), s=(4, 1, 1, 1), v=(5, 4, 3, 3)))

    checkpoint, plan = shrink_model(target())
    assert "k" in {weight.name for weight in plan.weights}
    grown, _, _ = grow_model(checkpoint, target=target())
    assert weights(grown)["v"].shape == (5, 4, 3, 3)


def test_the_target_tells_the_plan_where_kernels_of_one_size_differ() -> None:
    """A kept 3×3 kernel, a shrunk one, and one that covers a map of 3×3 pixels."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, w) b = Conv <pads=[1,1,1,1]> (a, u)
        p = AveragePool <kernel_shape=[12,12], strides=[12,12]> (b) y = Conv (p, v)
    """
    kernels = {"w": (4, 1, 3, 3), "u": (4, 4, 3, 3), "v": (5, 4, 3, 3)}
    target = ir.from_proto(graph(nodes, "float[1,1,36,36] x", **kernels))
    checkpoint, _ = shrink_model(target, keep=["u"], input_size=12)
    assert [weights(checkpoint)[name].shape[-1] for name in "wuv"] == [2, 3, 1]
    expected, _, _ = grow_model(checkpoint.clone())
    del checkpoint.metadata_props[METADATA_KEY]
    grown, _, _ = grow_model(checkpoint, target=target)
    for name, weight in weights(expected).items():
        np.testing.assert_array_equal(weights(grown)[name], weight)


def test_a_plan_of_an_older_format_needs_the_target() -> None:
    checkpoint, plan = shrink_model(model(), input_size=20)
    old = {**json.loads(plan.to_json()), "format": 1}
    checkpoint.metadata_props[METADATA_KEY] = json.dumps(old)
    with pytest.raises(graphscale.GraphScaleError, match=r"older graphscale.*--target"):
        grow_model(checkpoint)
    grown, _, found = grow_model(checkpoint, target=model())
    assert isinstance(found, Plan)
    assert weights(grown)["v"].shape == (1024, 5)


def test_without_a_plan() -> None:
    with pytest.raises(graphscale.GraphScaleError, match="carries no plan"):
        grow_model(model())


def test_texts_are_no_weights() -> None:
    pretrain, _ = shrink_model(model())
    name, weight = next(iter(pretrain.graph.initializers.items()))
    texts = ir.StringTensor([b"a"] * weight.const_value.size, shape=weight.const_value.shape)
    weight.const_value = texts
    texts.name = name
    with pytest.raises(graphscale.GraphScaleError, match=f"{name}' holds STRING in the checkpoint"):
        grow_model(pretrain)
