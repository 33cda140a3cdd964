"""Planning does not change the model, reads no weight, and gives the plan that shrinking gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphscale
from graphscale.rescaling.plan import derive, plan_model, prepare
from graphscale.rescaling.shrink import shrink_model
from tests.passes.small_graphs import constant, graph, run

NODES = """
    c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
    r = Relu (c)
    f = Reshape (r, shape)
    y = MatMul (f, v)
"""


def model() -> ir.Model:
    weights = {"w": (4, 3, 3, 3), "v": (1024, 5), "shape": np.array([0, 1024])}
    return ir.from_proto(graph(NODES, **weights))


def test_the_model_is_left_as_it_is() -> None:
    target = model()
    before = ir.to_proto(target).SerializeToString(deterministic=True)
    plan = plan_model(target, input_size=20)
    assert ir.to_proto(target).SerializeToString(deterministic=True) == before
    assert [weight.name for weight in plan.weights] == ["w", "v"]
    assert plan.constants == ["shape"]
    assert plan.init == ""


class Unread(ir.Tensor):
    """A tensor whose numbers nobody may look at."""

    def numpy(self) -> np.ndarray:
        raise AssertionError("the weight was read")


def test_no_large_weight_is_read() -> None:
    weights = {"w": (4, 3, 3, 3), "v": (1024, 80), "shape": np.array([0, 1024])}
    target = ir.from_proto(graph(NODES, **weights))
    value = target.graph.initializers["v"]
    value.const_value = Unread(value.const_value.numpy(), name="v")
    assert plan_model(target, input_size=20).weights[1].target_shape == [1024, 80]
    with pytest.raises(AssertionError, match="the weight was read"):
        shrink_model(target, input_size=20)


def test_a_plan_says_what_shrinking_does() -> None:
    plan = plan_model(model(), input_size=20)
    pretrain, carried = shrink_model(model(), input_size=20, init="resize")
    assert carried.init == "resize"
    carried.init = ""
    assert plan == carried
    shapes = {
        name: value.const_value.shape.numpy() for name, value in pretrain.graph.initializers.items()
    }
    assert shapes["w"] == (4, 3, 2, 2)
    assert shapes["v"] == tuple(plan.weights[1].pretrain_shape)


def test_steps_can_be_taken_one_by_one() -> None:
    target = prepare(model(), 20)
    assert target.size.pretrain == (20,)
    assert target.shapes == {"x": [1, 3, 32, 32]}
    pretrain, plan = derive(target)
    assert pretrain is target.model
    assert plan == plan_model(model(), input_size=20)


def test_a_network_without_convolutions() -> None:
    target = ir.from_proto(graph("y = Relu (x)"))
    with pytest.raises(graphscale.GraphScaleError, match="holds no convolution"):
        plan_model(target)


def test_an_input_larger_than_the_targets() -> None:
    with pytest.raises(graphscale.GraphScaleError, match=r"'x': a pre-train size of 40 is larger"):
        plan_model(model(), input_size=40)


def test_where_sizes_cannot_be_followed_kernels_alone_shrink() -> None:
    """Three rows are picked, so the map that they come from keeps its 32 rows; 20 are refused."""
    nodes = """
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = Conv <pads=[1,1,1,1]> (a, v)
        y = Gather <axis=2> (b, rows)
    """
    rows = [1, 2, 30]
    target = graph(nodes, w=(4, 3, 3, 3), v=(4, 4, 3, 3), rows=np.array(rows))
    for given in (None, 20):
        with pytest.raises(graphscale.GraphScaleError, match=r"gather_2.*--input-size 224:224"):
            graphscale.shrink(target, input_size=given)
    pretrain = graphscale.shrink(target, input_size="32:32")
    assert constant(pretrain, "w").shape == (4, 3, 2, 2)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="b")
    outputs = run(inner)
    assert outputs["b"].shape == (1, 4, 32, 32)
    np.testing.assert_array_equal(outputs["y"], outputs["b"][:, :, rows])
    grown = graphscale.grow(pretrain)
    assert constant(grown, "v").shape == (4, 4, 3, 3)
    assert run(grown)["y"].shape == (1, 4, 3, 32)


def test_the_own_size_is_not_advised_where_it_does_not_help() -> None:
    """A kernel of one pixel makes a map of 32 rows, not of the 30 that are read."""
    nodes = "a = Conv (x, w)  y = Gather <axis=2> (a, rows)"
    target = graph(nodes, w=(4, 3, 3, 3), rows=np.array([1, 2, 5]))
    with pytest.raises(graphscale.GraphScaleError) as error:
        graphscale.shrink(target, input_size="32:32", kernels={3: 1})
    assert "picks single rows" in str(error.value)
    assert "--input-size" not in str(error.value)


@pytest.mark.parametrize("size", [(46, 32), (64, 24), (46, 24)])
@pytest.mark.parametrize("last", [False, True])
def test_the_image_size_is_height_and_width_also_where_one_is_kept(
    size: tuple[int, int], last: bool
) -> None:
    move = "m = Transpose <perm=[0,3,1,2]> (x)" if last else "m = Identity (x)"
    shape = "1,64,32,3" if last else "1,3,64,32"
    nodes = f"{move} c = Conv <pads=[1,1,1,1]> (m, w) y = GlobalAveragePool (c)"
    plan = plan_model(
        ir.from_proto(graph(nodes, f"float[{shape}] x", w=(4, 3, 3, 3))), input_size=size
    )
    assert plan.image_size == size
    assert plan.inputs[0].spatial == ([1, 2] if last else [2, 3])
