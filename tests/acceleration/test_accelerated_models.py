"""accelerate on unusual models: functions, branches, loops, inputs of other types, odd outputs."""

import json

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphscale
from graphscale.acceleration.accelerate_model import RUNTIME
from graphscale.acceleration.whole_model import Original
from graphscale.cli.command_line import main
from graphscale.core.tuning import Tuner

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WEIGHT = np.random.default_rng(0).normal(size=(3, 3, 5, 5)).astype("f4") / 9


@pytest.fixture(autouse=True)
def fft_wins(tmp_path, monkeypatch):
    """FFTConv wins every layer that is measured, and the whole model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {RUNTIME: 2.0, "dense 16x16": 1.0})
    monkeypatch.setattr(
        "graphscale.acceleration.choose_layers.measure_seconds",
        lambda candidates, max_seconds: {
            name: 2.0 if name == "before" else 1.0 for name in candidates
        },
    )


def conv(x: str, y: str, name: str = "conv", weight: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [x, weight], [y], name, pads=[2] * 4)


def info(name: str, kind: int = FLOAT, shape=(1, 3, 12, 12)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=None, outputs=None, constants=(), opset=17, domain="", **kwargs):
    initializers = [numpy_helper.from_array(WEIGHT, "w"), *constants]
    graph = helper.make_graph(
        nodes, "graph", inputs or [info("x")], outputs or [info("y")], initializers
    )
    opsets = [helper.make_opsetid(domain, opset), *kwargs.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, **{"ir_version": 9, **kwargs})


def ops(accelerated: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in accelerated.graph.node]


def same_outputs(before: onnx.ModelProto, after: onnx.ModelProto, feeds: dict) -> None:
    """Both models agree, in an onnxruntime without and with graphscale's library."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    wanted = onnxruntime.InferenceSession(before.SerializeToString(), options).run(None, feeds)
    stock = onnxruntime.InferenceSession(after.SerializeToString(), options).run(None, feeds)
    ours = graphscale.session(after.SerializeToString()).run(None, feeds)
    for one, other, third in zip(wanted, stock, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(third, one, rtol=1e-4, atol=1e-5)


X = np.random.default_rng(1).normal(size=(1, 3, 12, 12)).astype("f4")


def test_the_standard_domain_as_ai_onnx():
    before = model([conv("x", "y")], domain="ai.onnx")
    after = graphscale.accelerate(before)
    assert ops(after) == ["FFTConv"]
    same_outputs(before, after, {"x": X})


def test_initializers_that_old_files_list_as_inputs_stay_constant():
    before = model([conv("x", "y")], [info("x"), info("w", shape=(3, 3, 5, 5))], opset=7)
    before.ir_version = 3
    after = graphscale.accelerate(before)
    assert ops(after) == ["FFTConv"]
    assert [each.name for each in after.graph.input] == ["x"]
    same_outputs(before, after, {"x": X})


def test_a_convolution_whose_weight_is_an_input_stays():
    before = model([conv("x", "y")], [info("x"), info("w", shape=(3, 3, 5, 5))])
    assert ops(graphscale.accelerate(before)) == ["Conv"]


def test_convolutions_in_functions_are_inlined():
    inner = helper.make_function(
        "my", "Inner", ["a", "w"], ["b"], [conv("a", "b")], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Inner", ["a", "w"], ["b"], domain="my")
    outer = helper.make_function(
        "my",
        "Outer",
        ["a", "w"],
        ["c"],
        [call, helper.make_node("Abs", ["b"], ["c"])],
        [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)],
    )
    nodes = [
        helper.make_node("Outer", ["x", "w"], ["h"], domain="my"),
        helper.make_node("Outer", ["h", "w"], ["y"], domain="my"),
    ]
    before = model(nodes, functions=[inner, outer], opsets=[helper.make_opsetid("my", 1)])
    after = graphscale.accelerate(before)
    assert ops(after) == ["FFTConv", "Abs"] * 2
    same_outputs(before, after, {"x": X})


def test_convolutions_in_branches_are_listed(tmp_path, capsys):
    branches = {
        f"{name}_branch": helper.make_graph(
            [conv("z", f"{name}_y", name)], name, [], [info(f"{name}_y")]
        )
        for name in ("then", "else")
    }
    nodes = [conv("x", "z", "top"), helper.make_node("If", ["c"], ["y"], "choice", **branches)]
    before = model(nodes, [info("x"), info("c", BOOL, [])])
    path = tmp_path / "model.onnx"
    onnx.save(before, path)
    assert main(["accelerate", str(path), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["name"]: layer["path"] for layer in layers} == {
        "top": "dense 16x16",
        "then": RUNTIME,
        "else": RUNTIME,
    }
    assert layers[1]["reason"] == "it stands inside 'choice' (If)"
    after = onnx.load(tmp_path / "model.accelerated.onnx")
    for condition in (True, False):
        same_outputs(before, after, {"x": X, "c": np.array(condition)})


def test_loops_contrib_operators_and_sizes_that_depend_on_the_data():
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["state", "state"], ["next"]),
        ],
        "step",
        [info("i", INT64, []), info("go", BOOL, []), info("state")],
        [info("on", BOOL, []), info("next")],
    )
    nodes = [
        helper.make_node("Loop", ["count", "", "x"], ["z"], body=step),
        helper.make_node("QuickGelu", ["z"], ["g"], domain="com.microsoft"),
        helper.make_node("NonZero", ["x"], ["places"]),
        conv("g", "y"),
    ]
    before = model(
        nodes,
        outputs=[info("y"), info("places", INT64, None)],
        constants=[numpy_helper.from_array(np.array(2), "count")],
        opsets=[helper.make_opsetid("com.microsoft", 1)],
    )
    after = graphscale.accelerate(before)
    assert "FFTConv" in ops(after)
    same_outputs(before, after, {"x": X})


@pytest.mark.parametrize("kind", [TensorProto.UINT8, BOOL, TensorProto.INT16, TensorProto.FLOAT16])
def test_inputs_of_other_types(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), conv("f", "y")]
    before = model(nodes, [info("x", kind)])
    after = graphscale.accelerate(before)
    assert "FFTConv" in ops(after)
    same_outputs(before, after, {"x": np.abs(X * 3).astype(dtype)})


def test_an_input_without_numpy_type_is_one_sentence():
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), conv("f", "y")]
    with pytest.raises(graphscale.GraphScaleError, match=r"input 'x' has the type .*bfloat16"):
        graphscale.accelerate(model(nodes, [info("x", TensorProto.BFLOAT16)]))


def test_outputs_that_are_finite_for_some_inputs_only():
    before = model([helper.make_node("Log", ["x"], ["l"]), conv("l", "y")])
    after = graphscale.accelerate(before)
    assert "FFTConv" in ops(after)
    same_outputs(before, after, {"x": np.abs(X)})


def test_infinite_outputs_and_sequences_and_text_are_compared():
    nodes = [
        conv("x", "z"),
        helper.make_node("Div", ["z", "nought"], ["y"]),
        helper.make_node("SplitToSequence", ["z"], ["parts"], axis=1),
        helper.make_node("Identity", ["text"], ["same"]),
    ]
    text = TensorProto.STRING
    before = model(
        nodes,
        [info("x"), info("text", text, [2])],
        [
            info("y"),
            helper.make_tensor_sequence_value_info("parts", FLOAT, None),
            info("same", text, [2]),
        ],
        [numpy_helper.from_array(np.float32(0), "nought")],
    )
    assert "FFTConv" in ops(graphscale.accelerate(before))


@pytest.mark.parametrize(("changed", "fits"), [(1, True), (100, False)])
def test_a_few_classes_may_change_where_two_are_equally_likely(changed, fits):
    nodes = [conv("x", "z"), helper.make_node("ArgMax", ["z"], ["y"], axis=1, keepdims=0)]
    before = onnx_ir.from_proto(model(nodes, outputs=[info("y", INT64, [1, 12, 12])]))
    original = Original(before, {"x": X.shape}, "the model")

    class Rounding:
        def run(self, names, feeds):
            classes = original.opened.run(names, feeds)[0].copy()
            classes.flat[:changed] += 1
            return [classes]

    if fits:
        assert original.difference(Rounding(), 1e-4) == changed / 144
    else:
        with pytest.raises(graphscale.GraphScaleError, match="output 'y' changes by"):
            original.difference(Rounding(), 1e-4)


def test_a_model_that_amplifies_rounding_errors_may_differ_more():
    """Its output is 1e7 times the difference of two sums that differ by rounding only."""
    gain, nodes = (
        np.float32(1e7),
        [
            conv("x", "a"),
            helper.make_node("Mul", ["x", "two"], ["x2"]),
            helper.make_node("Div", ["x2", "three"], ["x3"]),
            conv("x3", "b", "other"),
            helper.make_node("Mul", ["b", "three"], ["b3"]),
            helper.make_node("Div", ["b3", "two"], ["c"]),
            helper.make_node("Sub", ["a", "c"], ["d"]),
            helper.make_node("Mul", ["d", "gain"], ["y"]),
        ],
    )
    constants = [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in (("two", 2), ("three", 3), ("gain", gain))
    ]
    assert "FFTConv" in ops(graphscale.accelerate(model(nodes, constants=constants)))


def test_outputs_that_differ_from_run_to_run_are_an_error(monkeypatch):
    nodes = [
        conv("x", "z"),
        helper.make_node("RandomNormalLike", ["z"], ["r"]),
        helper.make_node("Add", ["z", "r"], ["y"]),
    ]
    first = model(nodes)
    onnxruntime.set_seed(1)
    original = Original

    def opened(*args):
        onnxruntime.set_seed(1)
        found = original(*args)
        onnxruntime.set_seed(2)
        return found

    monkeypatch.setattr("graphscale.acceleration.accelerate_model.Original", opened)
    with pytest.raises(graphscale.GraphScaleError, match="'y' changes from run to run"):
        graphscale.accelerate(first)


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], "holds no Conv node"),
        ([helper.make_node("Foo", ["x"], ["f"], domain="acme"), conv("f", "y")], "acme:Foo"),
    ],
)
def test_what_cannot_be_accelerated_is_one_sentence(nodes, sentence, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, opsets=[helper.make_opsetid("acme", 1)]), path)
    assert main(["accelerate", str(path)]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_files_that_are_no_models(content, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    if content is None:
        path.write_bytes(model([conv("x", "y")]).SerializeToString()[:500])
    else:
        path.write_bytes(content)
    assert main(["accelerate", str(path)]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_nothing_is_measured_for_a_target_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    path = tmp_path / "model.onnx"
    onnx.save(model([conv("x", "y")]), path)
    monkeypatch.setattr(Tuner, "seconds", lambda *_: pytest.fail("measured"))
    assert main(["accelerate", str(path), "-o", str(tmp_path / "missing" / "o.onnx")]) == 2
    assert main(["accelerate", str(path), "-o", str(tmp_path)]) == 2
    assert main(["accelerate", str(path), "-o", "/dev/null"]) == 2
    assert "it is no file" in capfd.readouterr().err


def test_a_model_is_not_overwritten_by_itself_nor_through_a_link(tmp_path, capfd):
    path, link = tmp_path / "model.onnx", tmp_path / "link.onnx"
    onnx.save(model([conv("x", "y")]), path)
    link.symlink_to(path)
    content = path.read_bytes()
    for output in (path, link):
        assert main(["accelerate", str(path), "-o", str(output)]) == 2
        assert str(output) in capfd.readouterr().err
    assert path.read_bytes() == content


def test_a_second_time_changes_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {RUNTIME: 9.0, "dense 16x16": 1.0})
    path, once, twice = (tmp_path / name for name in ("model.onnx", "once.onnx", "twice.onnx"))
    onnx.save(model([conv("x", "y")]), path)
    assert main(["accelerate", str(path), "-o", str(once)]) == 0
    capsys.readouterr()
    assert main(["accelerate", str(once), "-o", str(twice)]) == 0
    assert "every convolution has its fastest way here" in capsys.readouterr().out
    assert twice.read_bytes() == once.read_bytes()


def test_one_size_only(tmp_path, capfd):
    path = tmp_path / "model.onnx"
    onnx.save(model([conv("x", "y")], [info("x", shape=("n", 3, "h", "w"))]), path)
    assert main(["accelerate", str(path), "--input-size", "12:8"]) == 2
    assert "one size" in capfd.readouterr().err
    assert main(["accelerate", str(path), "--input-size", "12"]) == 0


def test_models_beyond_protobufs_limit(monkeypatch):
    """protobuf's error for messages of more than 2 GiB is simulated."""
    import graphscale.acceleration.whole_model as whole_model

    real, calls = whole_model.ir.to_proto, []

    class Large:
        def SerializeToString(self):
            raise whole_model.EncodeError("too large")

    def to_proto(model):
        calls.append(model)
        return Large() if len(calls) == 1 else real(model)

    monkeypatch.setattr(whole_model.ir, "to_proto", to_proto)
    assert ops(graphscale.accelerate(model([conv("x", "y")]))) == ["FFTConv"]
