"""accelerate: which convolutions are rewritten, and that the model gives the same outputs.

Measurements are replaced by fixed seconds, so that no test depends on the machine's speed.
"""

import io
import json

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import graphscale
from graphscale.acceleration import choose_layers
from graphscale.acceleration.accelerate_model import RUNTIME, Acceleration, LayerChoice
from graphscale.cli.command_line import main
from graphscale.cli.tables import show_acceleration
from graphscale.core.tuning import Tuner


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def fft_wins(monkeypatch):
    """FFTConv wins every layer but the last, and the whole model."""

    def seconds(tuner, key, make_candidates):
        small = "3x3" in key.partition("weight=")[2].partition(" ")[0]
        return {RUNTIME: 2.0, "auto": 3.0} if small else {RUNTIME: 2.0, "dense 32x32": 1.0}

    monkeypatch.setattr(Tuner, "seconds", seconds)
    monkeypatch.setattr(
        "graphscale.acceleration.choose_layers.measure_seconds",
        lambda candidates, max_seconds: {
            name: 2.0 if name == "before" else 1.0 for name in candidates
        },
    )


@pytest.fixture
def model_file(tmp_path):
    """A 7×7, a depthwise 9×5, a strided 5×5 and a 3×3 convolution; symbolic batch."""
    generator = np.random.default_rng(0)
    weights, nodes, last = [], [], "image"
    for index, (shape, attributes) in enumerate(
        [
            ((4, 3, 7, 7), {"pads": [3, 3, 3, 3]}),
            ((4, 1, 9, 5), {"pads": [4, 2, 4, 2], "group": 4}),
            ((6, 4, 5, 5), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
            ((5, 6, 3, 3), {}),
        ]
    ):
        names = [last, f"w{index}", f"b{index}"][: 3 if index != 1 else 2]
        weights.append(numpy_helper.from_array(generator.normal(size=shape).astype("f4"), names[1]))
        if len(names) == 3:
            weights.append(numpy_helper.from_array(np.ones(shape[0], "f4"), names[2]))
        last = f"y{index}"
        nodes.append(helper.make_node("Conv", names, [last], f"conv{index}", **attributes))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 20, 18])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 5, 8, 7])],
        weights,
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def run(model, x: np.ndarray, library: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(graphscale.get_library_path())
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


@pytest.mark.parametrize("library", [True, False])
def test_rewritten_model_computes_the_same_with_and_without_the_library(
    model_file, fft_wins, library
):
    assert main(["accelerate", str(model_file)]) == 0
    rewritten = model_file.with_suffix(".accelerated.onnx")
    ops = [node.op_type for node in onnx.load(rewritten).graph.node]
    assert ops == ["FFTConv", "FFTConv", "FFTConv", "Conv"]
    onnx.checker.check_model(onnx.load(rewritten))
    for batch in (1, 3):
        x = np.random.default_rng(1).normal(size=(batch, 3, 20, 18)).astype("f4")
        wanted = run(model_file, x, library=False)
        found = run(rewritten, x, library)
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_report_names_every_convolution_and_the_reason(model_file, fft_wins, capsys):
    assert main(["accelerate", str(model_file), "--json", "--dry-run"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["path"] for layer in report["layers"]] == ["dense 32x32"] * 3 + [RUNTIME]
    assert report["layers"][0]["seconds"] == {RUNTIME: 2.0, "dense 32x32": 1.0}
    assert 0 < report["difference"] < 1e-5
    assert not model_file.with_suffix(".accelerated.onnx").exists()


def test_measures_by_itself_and_leaves_what_is_not_faster(model_file, monkeypatch, capsys):
    monkeypatch.setattr("graphscale.core.tuning._MAX_TIME_RATIO", 0.0)
    assert main(["accelerate", str(model_file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(layer["path"] == RUNTIME for layer in report["layers"])
    assert all(len(layer["seconds"]) > 2 for layer in report["layers"])
    assert all(min(layer["seconds"].values()) > 0 for layer in report["layers"])
    unchanged = onnx.load(model_file.with_suffix(".accelerated.onnx"))
    assert [node.op_type for node in unchanged.graph.node] == ["Conv"] * 4


def test_a_model_that_is_slower_as_a_whole_stays(model_file, fft_wins, monkeypatch, capsys):
    monkeypatch.setattr(
        "graphscale.acceleration.choose_layers.measure_seconds",
        lambda candidates, max_seconds: dict.fromkeys(candidates, 1.0),
    )
    assert main(["accelerate", str(model_file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["path"] for layer in report["layers"]] == [RUNTIME] * 4
    assert report["layers"][0]["reason"] == "the whole model would not be 5 % faster"
    unchanged = onnx.load(model_file.with_suffix(".accelerated.onnx"))
    assert [node.op_type for node in unchanged.graph.node] == ["Conv"] * 4
    assert not unchanged.functions


def test_only_the_layers_with_large_gains_where_the_model_is_the_fastest_so(
    model_file, fft_wins, monkeypatch
):
    def seconds(tuner, key, make_candidates):
        gain = 4.0 if "7x7" in key else 2.0
        return {RUNTIME: gain, "direct": 1.0}

    monkeypatch.setattr(Tuner, "seconds", seconds)
    monkeypatch.setattr(
        "graphscale.acceleration.choose_layers.measure_seconds",
        lambda candidates, max_seconds: {
            name: 1.0 if "3.0" in name or name == "after" else 2.0 for name in candidates
        },
    )
    rewritten = graphscale.accelerate(onnx.load(model_file))
    assert [node.op_type for node in rewritten.graph.node] == ["FFTConv", "Conv", "Conv", "Conv"]
    (algorithm,) = [a.s for a in rewritten.graph.node[0].attribute if a.name == "algorithm"]
    assert algorithm == b"direct"


def test_groups_of_equal_layers_are_tried_one_by_one(model_file, monkeypatch):
    """The first, with the largest gain, makes the whole model slower."""

    def seconds(tuner, key, make_candidates):
        gain = 4.0 if "7x7" in key else 2.0
        return {RUNTIME: gain, "direct": 1.0}

    monkeypatch.setattr(Tuner, "seconds", seconds)
    # The seconds of each trial, in order: of the sets, of each group, of the end.
    trials = [{"before": 9.0, "gains of 1.0 and more": 5.0, "gains of 3.0 and more": 8.0}]
    trials += [{"best": 5.0, "changed": 4.0}]
    trials += [{"best": 4.0, "changed": 3.99}, {"best": 4.0, "changed": 4.1}] * 2
    trials[-1:] = [{"before": 9.0, "after": 4.0}]

    def measure(candidates, max_seconds):
        for run in candidates.values():
            run()
        (found, *trials[:]) = trials
        assert set(found) == set(candidates)
        return found

    monkeypatch.setattr("graphscale.acceleration.choose_layers.measure_seconds", measure)
    reports = []
    rewritten = graphscale.accelerate(
        onnx.load(model_file), progress=lambda done, total: reports.append((done, total))
    )
    assert not trials
    assert [node.op_type for node in rewritten.graph.node] == ["Conv", *["FFTConv"] * 3]
    assert reports[-1][0] == reports[-1][1]
    assert reports == sorted(reports)


def test_algorithms_of_fftconv_nodes_are_chosen_anew(model_file, fft_wins, monkeypatch):
    rewritten = graphscale.accelerate(onnx.load(model_file))
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {RUNTIME: 1.0, "direct": 2.0})
    restored = graphscale.accelerate(rewritten)
    assert [node.op_type for node in restored.graph.node] == ["Conv"] * 4
    assert not any(a.name == "algorithm" for node in restored.graph.node for a in node.attribute)


def test_outputs_that_would_change_are_an_error(model_file, fft_wins, monkeypatch, capsys):
    original = choose_layers.rewrite_model

    def wrongly(model, algorithms):
        model.graph.initializers["b3"].const_value = onnx_ir.tensor(np.full(5, 1e4, "f4"))
        return original(model, algorithms)

    monkeypatch.setattr(choose_layers, "rewrite_model", wrongly)
    assert main(["accelerate", str(model_file)]) == 2
    assert "'y3'" in capsys.readouterr().err
    assert not model_file.with_suffix(".accelerated.onnx").exists()


def test_a_model_that_does_not_run_is_one_sentence(tmp_path, capfd):
    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), "f4"), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "first")],
        "four_channels_for_three",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    assert main(["accelerate", str(path)]) == 2
    error = capfd.readouterr().err
    assert "node 'first': onnxruntime does not run it" in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.glob("*.onnx")) == [path]


@pytest.mark.parametrize("arguments", [["--batch", "0"], ["--input-size", "x"]])
def test_bad_options(model_file, arguments, capsys):
    assert main(["accelerate", str(model_file), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_accelerated_convolutions_are_shrunk_and_grown_like_others(model_file, fft_wins):
    rewritten = graphscale.accelerate(onnx.load(model_file))
    plain = graphscale.shrink(onnx.load(model_file), init="resize")
    pretrain = graphscale.shrink(rewritten, init="resize")
    assert [node.op_type for node in pretrain.graph.node].count("FFTConv") == 3
    for one, other in zip(plain.graph.initializer, pretrain.graph.initializer, strict=True):
        assert (one.name, one.dims) == (other.name, other.dims)
    grown = graphscale.grow(pretrain)
    assert list(grown.graph.node) == list(rewritten.graph.node)
    trained = graphscale.load(pretrain)
    assert {name for name, _ in trained.named_parameters()} == {
        tensor.name for tensor in rewritten.graph.initializer
    }


def test_layers_that_were_not_measured_are_listed_by_reason():
    reason = "its kernel has one tap"
    layers = [
        LayerChoice("large", [9, 9], [1, 4, 20, 20], "direct", {RUNTIME: 2e-3, "direct": 1e-3}),
        *(LayerChoice(name, [1, 1], [1, 4, 20, 20], reason=reason) for name in ("one", "two")),
    ]
    text = io.StringIO()
    show_acceleration(Acceleration(layers), Console(file=text, width=100), None)
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert ["large", "9×9", "1×4×20×20", "2", "ms", "1", "ms", "direct"] in lines
    assert [*reason.split(), "one,", "two"] in lines
