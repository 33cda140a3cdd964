"""The target is filled from a checkpoint; what does not fit is refused by name."""

import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.passes.grow.grow_graph import grow_graph
from tests.passes.parsed_graphs import normal, parse, read
from tests.passes.test_graph_forms import classify, finish, ints, loop, stem
from tests.passes.test_random_networks import interpolated, weights
from tests.zoo.handmade import Graph

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 9, 9] x) => (float[N, 4] y)'
BODY = "{ a = Conv(x, k, b)  p = GlobalAveragePool(a)  y = Flatten(p) }"
TARGET = {"k": normal(4, 2, 5, 5), "b": normal(4)}


def planned() -> tuple[ir.Model, Plan]:
    """A pre-train network, whose kernel has 3×3 taps, and its plan."""
    pretrain = graphscale.shrink(parse(f"{HEAD} {BODY}", **TARGET), init="resize")
    return ir.from_proto(pretrain), graphscale.plan(parse(f"{HEAD} {BODY}", **TARGET))


def test_a_constant_kernel_grows_to_a_constant_one_of_equal_sum():
    """Bilinear growth times (3/5)² keeps what the kernel makes of a constant image."""
    checkpoint, plan = planned()
    kernel = checkpoint.graph.initializers["k"]
    kernel.const_value = ir.tensor(np.ones((4, 2, 3, 3), np.float32), name="k")
    target = read(f"{HEAD} {BODY}", **TARGET)
    growth = grow_graph(target, checkpoint, plan, "bilinear")
    assert (growth.resized, growth.copied, growth.renamed, growth.untied) == (["k"], ["b"], {}, [])
    grown = target.graph.initializers["k"].const_value.numpy()
    np.testing.assert_allclose(grown, np.full((4, 2, 5, 5), 9 / 25), rtol=1e-6)
    bias = target.graph.initializers["b"].const_value.numpy()
    np.testing.assert_array_equal(bias, TARGET["b"])


def test_weights_are_converted_to_the_targets_type():
    checkpoint, plan = planned()
    half = checkpoint.graph.initializers["b"].const_value.numpy().astype(np.float16)
    checkpoint.graph.initializers["b"].const_value = ir.tensor(half, name="b")
    target = read(f"{HEAD} {BODY}", **TARGET)
    grow_graph(target, checkpoint, plan, "bilinear")
    bias = target.graph.initializers["b"].const_value
    assert bias.dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(bias.numpy(), half.astype(np.float32))


def test_a_number_that_the_targets_type_cannot_hold_is_refused():
    checkpoint, plan = planned()
    wide = np.full(4, 1e39)
    checkpoint.graph.initializers["b"].const_value = ir.tensor(wide, name="b")
    target = read(f"{HEAD} {BODY}", **TARGET)
    grow_graph(target, checkpoint, plan, "bilinear")
    with pytest.raises(GraphScaleError, match="'b' holds numbers that are too large for FLOAT"):
        target.graph.initializers["b"].const_value.numpy()


def test_a_checkpoint_of_another_network_is_refused_by_its_weights():
    _, plan = planned()
    other = read(f"{HEAD} {BODY}", k=normal(6, 2, 3, 3), b=normal(4))
    with pytest.raises(
        GraphScaleError, match=r"no weight fits 'k' of shape \[4, 2, 3, 3\].*\[6, 2"
    ):
        grow_graph(read(f"{HEAD} {BODY}", **TARGET), other, plan, "bilinear")


# --- weights whose growth needs a word of its own -------------------------------------------------


def map_as_rows_times_columns():
    """A MatMul on N×C×(H·W), as in pooling by learned positions."""
    g = Graph()
    x = g.op("MaxPool", stem(g, 4), kernel_shape=[4, 4], strides=[4, 4])
    y = g.op("Reshape", x, ints(g, 0, 4, -1))
    weight = g.normal("positions.weight", 64, 3)
    y = g.op("MatMul", y, weight)
    return finish(g, g.op("ReduceMean", y, axes=[2], keepdims=0), ["n", 4])


def test_a_product_over_positions_is_an_interface() -> None:
    pretrain, grown = loop(map_as_rows_times_columns()[0])
    small, large = (weights(model)["positions.weight"] for model in (pretrain, grown))
    side = round(len(small) ** 0.5)
    assert side < 8
    expected = interpolated(interpolated(small.reshape(side, side, 3), 0, 8), 1, 8)
    np.testing.assert_allclose(large, expected.reshape(64, 3), atol=1e-5)


def table_of_positions():
    g = Graph()
    x = g.op("Add", stem(g), g.normal("positions.table", 1, 8, 32, 32))
    return classify(g, g.conv(x, 8, 8, 3, 3, pads=[1] * 4), 8)


def test_a_table_is_interpolated_without_amplitude() -> None:
    """A table's numbers are added to the map, not summed over: they are only interpolated."""
    pretrain, grown = loop(table_of_positions()[0])
    small, large = (weights(model)["positions.table"] for model in (pretrain, grown))
    side = small.shape[2]
    assert side < 32
    expected = interpolated(interpolated(small, 2, 32), 3, 32) * (32 / side) ** 2
    np.testing.assert_allclose(large, expected, atol=1e-5)


def kernel_behind_a_transpose():
    """HWIO weights, as TensorFlow stores them."""
    g = Graph()
    weight = g.op("Transpose", g.normal("conv.weight", 3, 3, 8, 8), perm=[3, 2, 0, 1])
    return classify(g, g.op("Conv", stem(g), weight, pads=[1] * 4), 8)


def test_a_transposed_kernel_is_resized_where_it_is_stored() -> None:
    pretrain, grown = loop(kernel_behind_a_transpose()[0])
    small, large = (weights(model)["conv.weight"] for model in (pretrain, grown))
    assert small.shape == (2, 2, 8, 8)
    expected = interpolated(interpolated(small, 0, 3), 1, 3)
    np.testing.assert_allclose(large, expected, atol=1e-6)


def test_a_plan_that_grows_a_weight_beyond_its_target_network_is_refused():
    checkpoint, plan = planned()
    plan.weights[0].factors[2] = [(500, 3)]
    with pytest.raises(GraphScaleError, match=r"'k' to the shape \[4, 2, 500, 5\], but .* 5, 5\];"):
        grow_graph(read(f"{HEAD} {BODY}", **TARGET), checkpoint, plan, "bilinear")
