"""graphscale grow: the file that it writes, its table and JSON, lost plans, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphscale.cli.command_line import main
from tests.zoo.handmade import upsample

from .check_output import weight_of


def test_grow_reports_every_weight(pretrain: Path, capsys) -> None:
    capsys.readouterr()
    assert main(["grow", str(pretrain), "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == ""
    assert report["output"] == str(pretrain.with_name("target.pretrain.grown.onnx"))
    floats = {
        tensor.name
        for tensor in onnx.load(pretrain).graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    assert {*report["resized"], *report["copied"]} == floats
    assert "conv_0.weight" in report["resized"]
    assert "conv_0.bias" in report["copied"]
    assert report["renamed"] == {}
    assert report["check"] is None


def test_grow_shows_tables(pretrain: Path, capsys) -> None:
    assert main(["grow", str(pretrain), "-o", str(pretrain.with_name("big.onnx"))]) == 0
    out = capsys.readouterr().out
    assert "conv_0.weight" in out
    assert "16×3×3×3" in out
    assert "16×3×5×5" in out
    assert pretrain.with_name("big.onnx").exists()


def test_check_compares_both_networks_on_the_same_images(pretrain: Path, tmp_path, capsys) -> None:
    capsys.readouterr()
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).standard_normal((5, 3, 50, 60)).astype(np.float32))
    for given, count in (([], 16), ([str(images)], 5)):
        assert main(["grow", str(pretrain), "--json", "--check", *given]) == 0
        (check,) = json.loads(capsys.readouterr().out)["check"]
        assert check["pictures"] == count
        assert 0 <= check["difference"] < 10
        assert -1 <= check["correlation"] <= 1


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest", "align-corners"])
def test_resize_methods_keep_the_sum_of_equal_taps(pretrain: Path, method: str) -> None:
    model = onnx.load(pretrain)
    tensor = weight_of(model, "conv_4.weight")
    flat = np.full(tensor.dims, 0.25, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(flat, tensor.name))
    onnx.save(model, pretrain)
    assert main(["grow", str(pretrain), "--resize", method]) == 0
    grown = onnx.load(pretrain.with_name("target.pretrain.grown.onnx"))
    large = numpy_helper.to_array(weight_of(grown, "conv_4.weight"))
    assert large.shape[2:] == (3, 3)
    np.testing.assert_allclose(large.sum((2, 3)), flat.sum((2, 3)), rtol=1e-6)


def without_plan(path: Path, rename: bool = False) -> Path:
    """The checkpoint as another program may write it: no metadata, perhaps other names."""
    model = onnx.load(path)
    del model.metadata_props[:]
    if rename:
        names = {tensor.name: f"p{i}" for i, tensor in enumerate(model.graph.initializer)}
        for tensor in model.graph.initializer:
            tensor.name = names[tensor.name]
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [
                f"o_{name}" if name != model.graph.output[0].name else name for name in node.output
            ]
            node.input[:] = [
                name if name in names.values() or name == "image" or not name else f"o_{name}"
                for name in node.input
            ]
            node.name = f"n_{node.name}"
    other = path.with_name("foreign.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, other)
    return other


@pytest.mark.parametrize("rename", [False, True])
@pytest.mark.parametrize("by", ["plan", "target"])
def test_a_checkpoint_without_its_plan_grows(target, pretrain, capsys, by, rename) -> None:
    expected = pretrain.with_name("expected.onnx")
    assert main(["grow", str(pretrain), "-o", str(expected)]) == 0
    foreign = without_plan(pretrain, rename)
    source = pretrain.with_suffix(".plan.json") if by == "plan" else target
    capsys.readouterr()
    assert main(["grow", str(foreign), f"--{by}", str(source), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert bool(report["renamed"]) == rename
    grown, wanted = onnx.load(report["output"]), onnx.load(expected)
    assert grown.graph == wanted.graph


def test_checkpoint_of_another_network(pretrain: Path, tmp_path: Path, complaint) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(upsample(17), other)
    text = complaint("grow", other, "--plan", pretrain.with_suffix(".plan.json"))
    assert "conv_0.weight" in text
    text = complaint("grow", other, "--target", tmp_path / "target.onnx")
    assert "conv" in text


def test_checkpoint_without_a_plan(pretrain: Path, complaint) -> None:
    without_plan(pretrain)
    text = complaint("grow", pretrain.with_name("foreign.onnx"))
    assert "--plan" in text
    assert "--target" in text


def test_the_target_is_no_checkpoint(target: Path, complaint) -> None:
    assert "--plan" in complaint("grow", target)


def test_a_missing_weight_is_named(pretrain: Path, complaint) -> None:
    model = onnx.load(pretrain)
    tensor = weight_of(model, "conv_4.weight")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros((7, 16, 2, 2), np.float32), "conv_4.weight"))
    onnx.save(model, pretrain)
    assert "'conv_4.weight'" in complaint("grow", pretrain)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}', '{"format": 99}', "\x80\x00"])
def test_bad_plan_file(pretrain: Path, tmp_path: Path, complaint, text: str) -> None:
    plan = tmp_path / "bad.plan.json"
    plan.write_bytes(text.encode("latin-1"))
    assert "bad.plan.json" in complaint("grow", pretrain, "--plan", plan)


def test_missing_plan_file(pretrain: Path, tmp_path: Path, complaint) -> None:
    assert "none.json" in complaint("grow", pretrain, "--plan", tmp_path / "none.json")


def test_a_damaged_plan_in_the_metadata(pretrain: Path, complaint) -> None:
    model = onnx.load(pretrain)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"target":"', '"target":"x')
    onnx.save(model, pretrain)
    assert "damaged" in complaint("grow", pretrain)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.npy", None),
        ("empty.npy", b""),
        ("text.npy", b"no numbers"),
        ("archive.npy", {"x": np.zeros((2, 3, 8, 8))}),
        ("dates.npy", np.zeros((2, 3, 8, 8), "M8[s]")),
        ("flat.npy", np.zeros((2, 3, 8), np.float32)),
        ("channels.npy", np.zeros((2, 4, 8, 8), np.float32)),
        ("nothing.npy", np.zeros((2, 3, 0, 8), np.float32)),
    ],
)
def test_images_that_cannot_be_used_are_refused_first(
    pretrain: Path, tmp_path: Path, complaint, name: str, content
) -> None:
    """`complaint` checks that no grown model is written."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path.with_suffix(".npz"), **content)
        path.with_suffix(".npz").rename(path)
    elif content is not None:
        np.save(path, content)
    assert name in complaint("grow", pretrain, "--check", path)


def test_unknown_resize_method(pretrain: Path, complaint) -> None:
    assert "bicubic" in complaint("grow", pretrain, "--resize", "lanczos")


def test_the_plan_of_another_shrink_is_refused(target: Path, pretrain: Path, complaint) -> None:
    """What two writers of the same files can leave: the model of one, the plan of the other."""
    other = target.with_name("other.onnx")
    assert main(["shrink", str(target), "--kernels", "5:5", "-o", str(other)]) == 0
    text = complaint("grow", pretrain, "--plan", other.with_suffix(".plan.json"))
    assert "other.plan.json: is another plan than the one inside" in text
    assert "leave --plan out" in text
    assert main(["grow", str(pretrain), "--plan", str(pretrain.with_suffix(".plan.json"))]) == 0
