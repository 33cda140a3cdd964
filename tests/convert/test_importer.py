"""`graphscale.load`: networks equal onnxruntime's, and weights have their ONNX names."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

import graphscale
from tests.zoo import HANDMADE, export

from .compare import assert_matches, build, random, run_onnxruntime, run_torch

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def conv_chain(*names: str, opset: int = 17) -> onnx.ModelProto:
    """Convolutions one behind the other, with weights of the given names."""
    weights = {name: 0.3 * random(4, 4, 3, 3, seed=i) for i, name in enumerate(names)}
    values = ["x", *(f"value {i}" for i in range(1, len(names))), "y"]
    nodes = [
        helper.make_node("Conv", [values[i], name], [values[i + 1]], pads=[1] * 4)
        for i, name in enumerate(names)
    ]
    return build(nodes, weights, opset=opset)


@pytest.mark.parametrize("name", sorted(HANDMADE))
def test_handmade_networks(name):
    model = HANDMADE[name]()
    shape = [d.dim_value or 3 for d in model.graph.input[0].type.tensor_type.shape.dim]
    half = model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    x = np.abs(random(*shape)).astype(np.float16 if half else np.float32)
    assert_matches(model, x, tolerance=2e-3 if half else 1e-4)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["shufflenet_v2", "alexnet_lrn", "fpn_size"])
def test_exported_networks_at_any_batch(name, exporter):
    model = export(name, exporter, width=0.25, fold=False)
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    module = graphscale.load(model)
    for batch in (1, 3):
        x = np.abs(random(batch, 3, size, size))
        for ours, theirs in zip(run_torch(module, x), run_onnxruntime(model, x)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models(path):
    model = onnx.load(path)
    fed = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    shape = [d.dim_value for d in fed[0].type.tensor_type.shape.dim]
    assert_matches(model, np.abs(random(*shape)))
    assert len(list(graphscale.load(path).parameters())) > 0


@pytest.mark.parametrize(
    "names",
    [
        ("onnx::Conv_123", "/layer/weight", "layer1.0.conv.weight", "layer1.0.weight"),
        ("a", "a.b", "a.b.c"),
        ("a.b.c", "a.b", "a"),
        (".leading", "trailing.", "a..b"),
        ("forward", "graph", "train.weight", "source.model", "class", "code"),
        ("quote\"'s", "back\\slash", "with space", "new\nline", "ünïcode"),
    ],
)
def test_names_of_every_kind(names):
    model = conv_chain(*names)
    module, other = graphscale.load(model), graphscale.load(conv_chain(*names))
    assert set(dict(module.named_parameters())) == set(names)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(module.state_dict(), strict=True)
    x = random(2, 4, 8, 8)
    np.testing.assert_allclose(
        run_torch(other, x)[0], run_onnxruntime(model, x)[0], rtol=0, atol=1e-4
    )


def test_a_missing_weight_is_still_noticed():
    module = graphscale.load(conv_chain(".a", "b.c"))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*\.d"):
        module.load_state_dict({**module.state_dict(), ".d": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"Missing key.*\.a"):
        module.load_state_dict({"b.c": module.state_dict()["b.c"]})


def test_what_is_a_weight():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3, 8, 8] x) => (float[N, 1] y)
        <float[1, 3, 1, 1] mean = {0.1, 0.2, 0.3}, float[1, 3, 1, 1] spread = {2.0, 3.0, 4.0},
         float[1, 3, 1, 1] kernel = {1.0, 2.0, 3.0}, float[1] kernel_bias = {1.0},
         float[2] unused = {1.0, 2.0}, float half = {0.5}, float[1] one = {1.0},
         float[1, 1, 1, 2] scale = {1.0, 2.0}, float[8, 1] matrix = {1, 2, 3, 4, 5, 6, 7, 8},
         float[1] bias = {3.0}, int64[2] flat = {-1, 8}>
        {
            a = Mul(x, spread)
            b = Add(a, mean)
            c = Conv(b, kernel, kernel_bias)
            d = Mul(c, half)
            e = Add(d, one)
            steps = Constant <value_ints: ints = [4, 4]> ()
            f = AveragePool <kernel_shape = [2, 4], strides = [2, 4]> (e)
            g = Mul(f, scale)
            h = Reshape(g, flat)
            i = MatMul(h, matrix)
            y = Add(i, bias)
        }
    """)
    names = set(dict(graphscale.load(model).named_parameters()))
    assert names == {"kernel", "kernel_bias", "scale", "matrix", "bias"}
    assert_matches(model, random(3, 3, 8, 8))


def test_computed_weights_are_trained_at_their_root():
    nodes = [
        helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["w32"], ["kernel"], perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["x", "kernel"], ["y"]),
    ]
    model = build(nodes, {"w": random(4, 6, 3, 3).astype(np.float16)})
    module = graphscale.load(model)
    weight = dict(module.named_parameters())["w"]
    assert weight.dtype == torch.float16
    module(torch.rand(2, 4, 8, 8)).sum().backward()
    assert weight.grad.abs().min() > 0
    assert_matches(model, random(2, 4, 8, 8))


def test_constant_nodes_hold_weights():
    model = HANDMADE["constant_nodes"]()
    module = graphscale.load(model)
    outputs = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    assert {"conv_0.weight", "conv_0.bias"} <= set(dict(module.named_parameters())) <= outputs


def test_shape_arithmetic_follows_the_batch():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4, 6, 6] x) => (float[N, 2, 72] y, float[K, 4, 6, 6] z, int64[1] n)
        <int64 zero = {0}, int64[1] axis = {0}, int64[1] two = {2}, int64[1] four = {4},
         int64[1] six = {6}, int64[1] one = {1}, int64[1] rest = {-1}, int64[4] ones = {1, 1, 1, 1},
         int64[1] minus = {-1}>
        {
            sizes = Shape(x)
            batch = Gather <axis = 0> (sizes, zero)
            batches = Unsqueeze(batch, axis)
            doubled = Mul(batches, two)
            shape = Concat <axis = 0> (doubled, rest)
            a = Reshape(x, shape)
            shape_back = Concat <axis = 0> (batches, two, rest)
            y = Reshape(a, shape_back)
            padding_shape = Concat <axis = 0> (one, four, six, six)
            wide = Concat <axis = 0> (batches, four, six, six)
            unknown = Equal(wide, minus)
            chosen = Where(unknown, ones, wide)
            single = ConstantOfShape(padding_shape)
            zeros = Expand(single, chosen)
            more = ConstantOfShape(wide)
            z = Concat <axis = 0> (x, zeros, more)
            half = Div(doubled, two)
            n = Identity(half)
        }
    """)
    for batch in (1, 2, 7):
        assert_matches(model, random(batch, 4, 6, 6))


def test_functions_are_inlined():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y)
        <float[4, 4, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}>
        { y = local.Block(x, w) }
        <domain: "local", opset_import: ["" : 17]>
        Block (a, w) => (c) { b = Conv(a, w)  c = Relu(b) }
    """)
    assert_matches(model, random(2, 4, 8, 8))
    assert list(dict(graphscale.load(model).named_parameters())) == ["w"]


def test_all_missing_operators_are_named_at_once(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], name="first"),
        helper.make_node("Unheard", ["a"], ["y"], name="second", domain="far"),
    ]
    path = tmp_path / "net.onnx"
    onnx.save(build(nodes), path)
    with pytest.raises(
        graphscale.GraphScaleError, match=r"NonZero.*first.*far\.Unheard.*second"
    ) as e:
        graphscale.load(path)
    assert str(path) in str(e.value)


def test_numbers_that_depend_on_pictures_are_an_error():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["a"], name="first", axis=1, keepdims=0),
        helper.make_node("Flatten", ["a"], ["b"], axis=0),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Tile", ["x", "c"], ["y"], name="second"),
    ]
    model = build(nodes, {"shape": np.array([4])}, shape=(1, 3, 2, 2))
    with pytest.raises(graphscale.GraphScaleError, match=r"'second' \(Tile\).*known only when"):
        graphscale.load(model)


def test_open_sizes_need_input_size():
    model = conv_chain("w")
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    with pytest.raises(graphscale.GraphScaleError, match="input_size"):
        graphscale.load(model)
    module = graphscale.load(model, input_size=(6, 5))
    x = random(2, 4, 6, 5)
    np.testing.assert_allclose(
        run_torch(module, x)[0], run_onnxruntime(model, x)[0], rtol=0, atol=1e-4
    )


def test_an_open_batch_beside_a_state_of_one_image():
    """onnxruntime runs such a model, but only on one image."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "first"], ["steps"]),
        helper.make_node("RNN", ["steps", "w", "r", "", "", "h"], ["", "y"], hidden_size=2),
    ]
    weights = {"w": random(1, 2, 3), "r": random(1, 2, 2), "first": np.array([0])}
    model = build(nodes, weights, shape=("N", 3))
    model.graph.input.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, (1, 1, 2)))
    with pytest.raises(graphscale.GraphScaleError, match="takes one image alone: declare a batch"):
        graphscale.load(model)


@pytest.mark.parametrize("size", [(7,), (8, 7)])
def test_only_the_width_is_open(size):
    """As in text recognition; the height may be named, too, but not changed."""
    model = conv_chain("w")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value = 8
    dims[3].dim_param = "width"
    module = graphscale.load(model, input_size=size)
    x = random(2, 4, 8, 7)
    np.testing.assert_allclose(
        run_torch(module, x)[0], run_onnxruntime(model, x)[0], rtol=0, atol=1e-4
    )
    with pytest.raises(graphscale.GraphScaleError, match="the fixed size 8 and cannot be 6"):
        graphscale.load(model, input_size=(6, 7))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["opset17", "float16_stored", "float16"])
def test_dtype_converts_the_network(name, dtype):
    model = HANDMADE[name]()
    module = graphscale.load(model, dtype=dtype).eval()
    assert {p.dtype for p in [*module.parameters(), *module.buffers()]} == {dtype}
    shape = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert module(torch.rand(shape, dtype=dtype)).dtype == dtype


def test_dtype_spares_shape_arithmetic():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3, 10, 10] x) => (float[N, 3, 13, 13] y)
        <float[4] scales = {1.0, 1.0, 1.3, 1.3}, float[1, 3, 1, 1] mean = {0.1, 0.2, 0.3}>
        {
            a = Sub(x, mean)
            y = Resize <mode = "linear"> (a, , scales)
        }
    """)
    x = random(2, 3, 10, 10)
    outputs = graphscale.load(model, dtype=torch.float64)(torch.from_numpy(x).double())
    np.testing.assert_allclose(outputs, run_onnxruntime(model, x)[0], atol=1e-5)
    outputs = graphscale.load(model, dtype=torch.bfloat16)(torch.from_numpy(x).bfloat16())
    assert outputs.dtype == torch.bfloat16
    assert outputs.shape == (2, 3, 13, 13)


def test_several_inputs_and_outputs():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3] a, float[N, 3] b) => (float[N, 3] c, float[N, 3] d, float[2] e)
        <float[2] e = {5.0, 6.0}>
        { c = Add(a, b)  d = Sub(a, b) }
    """)
    assert_matches(model, random(4, 3), random(4, 3, seed=1))


def test_initializers_may_be_inputs_too():
    model = conv_chain("w")
    model.ir_version = 3
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4, 3, 3])
    model.graph.input.insert(0, value)
    assert_matches(model, random(2, 4, 8, 8))


def test_weights_are_copies():
    model = conv_chain("w")
    before = numpy_helper.to_array(model.graph.initializer[0]).copy()
    with torch.no_grad():
        next(graphscale.load(model).parameters()).zero_()
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), before)


def test_maps_that_do_not_fit_are_one_error(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["x", "half"], ["y"], "join", axis=1),
    ]
    with pytest.raises(graphscale.GraphScaleError, match=r"node 'join' \(Concat\) cannot be turne"):
        graphscale.load(build(nodes, {}))
    assert not caplog.records  # torch would log a traceback


def test_an_input_that_no_tensor_holds() -> None:
    model = conv_chain("w")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**62
    with pytest.raises(graphscale.GraphScaleError, match="input 'x' is too large for torch"):
        graphscale.load(model)
