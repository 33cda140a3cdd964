"""Weights that nodes compute become initializers with the numbers that onnxruntime computes."""

import numpy as np
import onnx
import pytest

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.passes.normalize.fold_constants import FoldConstants
from tests.passes.parsed_graphs import normal, operators, read, run
from tests.passes.small_graphs import graph, plan_in
from tests.passes.small_graphs import run as run_graph
from tests.passes.test_graph_forms import classify, stem
from tests.passes.test_random_networks import interpolated
from tests.passes.test_random_networks import run as run_sized
from tests.zoo.handmade import Graph

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 5, 5] x) => (float[N, C, H, W] y)'


def test_a_scaled_kernel_is_folded_under_its_name():
    model = read(
        f"""{HEAD} <float half = {{0.5}}> {{
            scaled = Mul(w, half)
            y = Conv(x, scaled)
        }}""",
        w=normal(3, 2, 3, 3),
    )
    x = normal(1, 2, 5, 5)
    expected = run(model, x=x)
    result = FoldConstants()(model)
    assert result.names == ["scaled"]
    assert operators(model) == ["Conv"]
    folded = model.graph.initializers["scaled"].const_value.numpy()
    np.testing.assert_array_equal(folded, normal(3, 2, 3, 3) / 2)
    np.testing.assert_allclose(run(model, x=x), expected, rtol=1e-6)


def test_a_weight_folded_from_a_folded_weight():
    model = read(
        f"""{HEAD} <float half = {{0.5}}> {{
            first = Mul(w, half)
            a = Conv(x, first)
            second = Mul(first, half)
            b = Conv(x, second)
            y = Add(a, b)
        }}""",
        w=normal(2, 2, 3, 3),
    )
    assert FoldConstants()(model).names == ["first", "second"]
    assert operators(model) == ["Conv", "Conv", "Add"]
    found = model.graph.initializers["second"].const_value.numpy()
    np.testing.assert_array_equal(found, normal(2, 2, 3, 3) / 4)


def test_fills_are_folded_where_they_scale_and_take_no_memory():
    model = read(f"""{HEAD} <int64[4] shape = {{1, 2, 5, 5}}> {{
        ones = ConstantOfShape <value = float[1] {{1.0}}> (shape)
        y = Mul(x, ones)
    }}""")
    assert FoldConstants()(model).names == ["ones"]
    array = model.graph.initializers["ones"].const_value.numpy()
    assert array.shape == (1, 2, 5, 5)
    assert set(array.strides) == {0}


@pytest.mark.parametrize(
    ("operator", "domain", "index"),
    [
        ("Conv", "", 1),
        ("ConvTranspose", "", 1),
        ("FusedConv", "com.microsoft", 1),
        ("FFTConv", "graphscale", 1),
        *(("Gemm", "", index) for index in (0, 1)),
        *(("MatMul", "", index) for index in (0, 1)),
        *(("Einsum", "", index) for index in (0, 1)),
    ],
)
def test_the_inputs_that_can_be_weights(operator, domain, index):
    """Only the node's inputs matter here, so a product of any shapes will do."""
    model = read(
        f"{HEAD} <float half = {{0.5}}> {{ s = Mul(w, half)  y = Conv(x, s) }}", w=normal(1)
    )
    conv = model.graph[-1]
    conv.op_type, conv.domain = operator, domain
    if index == 0:
        first, second = conv.inputs
        conv.replace_input_with(0, second)
        conv.replace_input_with(1, first)
    assert FoldConstants()(model).names == ["s"]


def test_an_operator_of_the_same_name_in_another_domain_has_no_weights():
    model = read(
        f"{HEAD} <float half = {{0.5}}> {{ s = Mul(w, half)  y = Conv(x, s) }}", w=normal(1)
    )
    model.graph[-1].domain = "elsewhere"
    assert FoldConstants()(model).names == []


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Transpose <perm = [3, 2, 0, 1]> (v)  y = Conv(x, t)",  # resizing reaches through it
        "shape = Shape(x)  y = Reshape(x, shape)",
        "a = Add(small, small)  y = Add(x, a)",  # a constant operand that is no fill
    ],
)
def test_other_constants_stay(nodes):
    model = read(f"{HEAD} {{ {nodes} }}", v=normal(3, 3, 2, 4), small=normal(1))
    before = operators(model)
    result = FoldConstants()(model)
    assert not result.modified
    assert operators(model) == before


@pytest.mark.parametrize(
    "nodes",
    [
        "half = Constant <value_float = 0.5> ()  p = Expand(half, size)  m = Bernoulli(p)"
        "  s = Mul(w, m)",
        "m = RandomUniformLike(w)  s = Mul(w, m)",
        "half = Constant <value_float = 0.5> ()  on = Cast <to = 9> (one)"
        "  s = Dropout(w, half, on)",
        "half = Constant <value_float = 0.5> ()  s = Dropout(w, half, training)",
    ],
)
def test_a_kernel_that_is_drawn_anew_each_time_is_not_folded(nodes):
    model = read(
        f"{HEAD} <int64[4] size = {{3, 2, 3, 3}}, float one = {{1.0}}> {{"
        f" {nodes}  y = Conv(x, s) }}",
        w=normal(3, 2, 3, 3),
        training=np.array(True),
    )
    before = operators(model)
    assert FoldConstants()(model).names == []
    assert operators(model) == before


def test_dropout_outside_training_is_folded():
    model = read(
        f"{HEAD} <float half = {{0.5}}> {{"
        " t = Dropout(w, half, training)  s = Mul(t, half)  y = Conv(x, s) }",
        w=normal(3, 2, 3, 3),
        training=np.array(False),
    )
    assert FoldConstants()(model).names == ["s"]
    assert operators(model) == ["Conv"]


def test_nodes_without_readers_that_were_there_before_stay():
    model = read(
        f"{HEAD} <float half = {{0.5}}> {{ dead = Relu(x)  s = Mul(w, half)  y = Conv(x, s) }}",
        w=normal(3, 2, 3, 3),
    )
    FoldConstants()(model)
    assert operators(model) == ["Relu", "Conv"]


def test_long_and_shared_arithmetic_takes_linear_time():
    """Each of 3,000 sums reads the one before twice: 2^3000 paths lead back to the weight."""
    lines = "\n".join(f"s{i + 1} = Sub(s{i}, s{i})" for i in range(3000))
    model = read(f"{HEAD} {{ s0 = Abs(w) {lines} y = Conv(x, s3000) }}", w=normal(1, 2, 1, 1))
    assert FoldConstants()(model).names == ["s3000"]
    assert operators(model) == ["Conv"]


def test_a_fill_larger_than_memory_is_refused():
    model = read(f"""{HEAD} <int64[4] shape = {{1000000, 1000000, 3, 3}}> {{
        huge = ConstantOfShape(shape)
        y = Conv(x, huge)
    }}""")
    with pytest.raises(GraphScaleError, match=r"ConstantOfShape.*check the model"):
        FoldConstants()(model)


def kernel_behind_arithmetic():
    """A kernel that is scaled in the graph, as weight normalisation or equalised rates do."""
    g = Graph()
    weight = g.normal("conv.weight", 8, 8, 3, 3)
    scaled = g.op("Mul", weight, g.constant("gain", np.float32(0.5)))
    return classify(g, g.op("Conv", stem(g), scaled, pads=[1] * 4), 8)


def test_a_computed_kernel_is_folded_and_said_to_be() -> None:
    target, _ = kernel_behind_arithmetic()
    pretrain = graphscale.shrink(target, init="resize")
    (folded,) = graphscale.plan(target).folded
    kernel = weights_by_name(pretrain)[folded]
    assert kernel.shape == (8, 8, 2, 2)
    grown = graphscale.grow(pretrain)
    np.testing.assert_allclose(
        weights_by_name(grown)[folded],
        interpolated(interpolated(kernel, 2, 3), 3, 3),
        atol=1e-6,
    )
    assert np.isfinite(run_sized(grown, 2)[grown.graph.output[0].name]).all()


def weights_by_name(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


def test_computed_coordinates_beside_a_map_keep_their_line() -> None:
    """A grid from -1 to 1, as optical flow networks add one, in arithmetic on constants."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        column = Unsqueeze (line, axes)
        square = Expand (column, sides)
        doubled = Mul (square, two)
        grid = Sub (doubled, one)
        y = Add (c, grid)
    """
    numbers = {"line": np.linspace(0, 1, 32, dtype=np.float32), "two": np.float32(2)}
    numbers |= {"one": np.float32(1), "axes": np.array([1]), "sides": np.array([32, 32])}
    target = graph(nodes, w=np.zeros((2, 3, 3, 3), np.float32), **numbers)
    pretrain = graphscale.shrink(target, input_size=20, init="resize")
    found = run_graph(pretrain)["y"][0, 0, :, 0]
    # Pixel centres of 20 pixels, in the places of the 32 that they stand between.
    places = (np.arange(20) + 0.5) * 32 / 20 - 0.5
    np.testing.assert_allclose(found, places / 31 * 2 - 1, atol=1e-5)
    assert plan_in(pretrain).folded == ["grid"]


@pytest.mark.parametrize("operator", ["Identity", "Sin"])
def test_a_table_that_torchs_expand_spreads_follows_the_map(operator: str) -> None:
    """torch writes the sizes of an expand with Equal and Where; encodings of places take sines."""
    nodes = f"""
        negative = Mul (ones, minus)
        kept = Equal (sides, negative)
        shape = Where (kept, ones, sides)
        waves = {operator} (line)
        table = Expand (waves, shape)
        both = Concat <axis=1> (x, table)
        y = Conv (both, w)
    """
    numbers = {"line": np.linspace(-1, 1, 32, dtype=np.float32)[:, None], "minus": np.array(-1)}
    numbers |= {"ones": np.ones(4, np.int64), "sides": np.array([1, 1, 32, 32])}
    target = graph(nodes, w=np.eye(4, dtype=np.float32)[None, 3, :, None, None], **numbers)
    pretrain = graphscale.shrink(target, input_size=20, init="resize")
    found = run_graph(pretrain)["y"][0, 0, :, 0]
    places = ((np.arange(20) + 0.5) * 32 / 20 - 0.5) / 31 * 2 - 1
    # Coordinates stay on their line; sines are interpolated, on growth with ends that repeat.
    expected, tolerance = (places, 1e-5) if operator == "Identity" else (np.sin(places), 0.03)
    np.testing.assert_allclose(found, expected, atol=tolerance)
