"""graphscale shrink: the files that it writes, its table and JSON, its options, and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphscale.cli.command_line import main
from tests.zoo.handmade import Graph, classic, constant_nodes, save_with_external_data, upsample

from .check_output import listing, weight_of


def test_shrink_writes_the_model_and_its_plan_beside_the_target(target: Path, capsys) -> None:
    assert main(["shrink", str(target)]) == 0
    out, err = capsys.readouterr()
    assert sorted(listing(target.parent)) == [
        "target.onnx",
        "target.pretrain.onnx",
        "target.pretrain.plan.json",
    ]
    assert err == ""
    for text in ("conv_0", "5×5 → 3×3", "image: batch×3×64×64 → batch×3×", "predicted ratio"):
        assert text in out


def test_shrink_writes_where_it_is_told(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    assert main(["shrink", str(target), "-o", str(folder / "small.onnx")]) == 0
    assert sorted(listing(folder)) == ["small.onnx", "small.plan.json"]


def test_dry_run_writes_nothing(target: Path, capsys) -> None:
    before = listing(target.parent)
    assert main(["shrink", str(target), "--dry-run"]) == 0
    assert "predicted ratio" in capsys.readouterr().out
    assert listing(target.parent) == before


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_json_is_one_object_with_the_promised_fields(target: Path, capsys, options) -> None:
    assert main(["shrink", str(target), "--json", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)  # fails on anything before or behind the object
    assert report["input"]["name"] == "image"
    assert report["input"]["target"] == ["batch", 3, 64, 64]
    size = report["input"]["pretrain"][2]
    assert report["input"]["pretrain"] == ["batch", 3, size, size]
    assert size < 64
    first, *_, last = report["layers"]
    assert first["name"] == "conv_0"
    assert first["weight"] == "conv_0.weight"
    assert first["op"] == "Conv"
    assert first["target_kernel"] == [5, 5]
    assert first["pretrain_kernel"] == [3, 3]
    assert first["target_extent"] == [32, 32]
    assert first["multiplications"]["target"] == 16 * 3 * 25 * 32 * 32
    height, width = first["pretrain_extent"]
    assert first["multiplications"]["pretrain"] == 16 * 3 * 9 * height * width
    assert first["left_unscaled"] is None
    assert last["left_unscaled"]
    total = report["multiplications"]
    for which in ("target", "pretrain"):
        assert total[which] == sum(layer["multiplications"][which] for layer in report["layers"])
    assert total["ratio"] == pytest.approx(total["target"] / total["pretrain"])


def test_json_through_a_pipe(target: Path) -> None:
    command = [sys.executable, "-m", "graphscale", "shrink", str(target), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["layers"]
    assert done.stderr == ""


def test_keep_leaves_layers_alone_by_node_or_weight(target: Path, capsys) -> None:
    options = ["--json", "--keep", "conv_0", "--keep", "conv_[4].weight"]
    assert main(["shrink", str(target), *options]) == 0
    layers = {layer["name"]: layer for layer in json.loads(capsys.readouterr().out)["layers"]}
    for name, reason in (("conv_0", "--keep conv_0"), ("conv_4", "--keep conv_[4].weight")):
        assert layers[name]["pretrain_kernel"] == layers[name]["target_kernel"]
        assert reason in layers[name]["left_unscaled"]
    assert layers["conv_7"]["pretrain_kernel"] == [2, 2]


@pytest.mark.parametrize("form", ["5:4,3:3", "file"])
def test_kernels_as_text_or_file(target: Path, tmp_path: Path, capsys, form: str) -> None:
    if form == "file":
        path = tmp_path / "table.txt"
        path.write_text("# ours\n5:4\n3 3\n")
        form = str(path)
    assert main(["shrink", str(target), "--json", "--kernels", form]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    kernels = {
        tuple(layer["target_kernel"]): tuple(layer["pretrain_kernel"])
        for layer in layers
        if layer["target_kernel"]
    }
    assert kernels == {(5, 5): (4, 4), (3, 3): (3, 3)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [("40", (40, 40)), ("40x48", (40, 48)), ("64:40", (40, 40)), ("64x64:48x40", (48, 40))],
)
def test_input_size(target: Path, capsys, given: str, expected: tuple[int, int]) -> None:
    assert main(["shrink", str(target), "--json", "--input-size", given]) == 0
    assert tuple(json.loads(capsys.readouterr().out)["input"]["pretrain"][2:]) == expected


def test_kernels_that_no_layer_has_are_said(target: Path, capsys) -> None:
    assert main(["shrink", str(target), "--json", "--kernels", "5:4,41:30,9:5"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["layers"][0]["pretrain_kernel"] == [4, 4]
    assert err.startswith("graphscale: note: 41:30,9:5 of --kernels changes nothing: ")
    assert "5" in err.rpartition("kernels have")[2]


def test_a_kernel_table_longer_than_any_file_name(target: Path) -> None:
    table = ",".join(["3:2"] * 100 + ["5:3"])
    assert main(["shrink", str(target), "--dry-run", "--kernels", table]) == 0


def test_fresh_weights_depend_on_the_seed_alone(target: Path) -> None:
    drawn = []
    for seed in ("1", "1", "2"):
        assert main(["shrink", str(target), "--init", "fresh", "--seed", seed]) == 0
        model = onnx.load(target.with_suffix(".pretrain.onnx"))
        drawn.append(numpy_helper.to_array(weight_of(model, "conv_4.weight")))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    # He et al.: variance 2 / fan-in
    assert drawn[0].std() == pytest.approx((2 / drawn[0][0].size) ** 0.5, rel=0.15)


def test_resized_weights_grow_back_into_themselves(pretrain: Path) -> None:
    assert main(["grow", str(pretrain)]) == 0
    grown = pretrain.with_name("target.pretrain.grown.onnx")
    assert main(["shrink", str(grown), "-o", str(pretrain.with_name("again.onnx"))]) == 0
    once, again = (onnx.load(path) for path in (pretrain, pretrain.with_name("again.onnx")))
    for tensor in once.graph.initializer:
        np.testing.assert_allclose(
            numpy_helper.to_array(weight_of(again, tensor.name)),
            numpy_helper.to_array(tensor),
            atol=1e-5,
            err_msg=tensor.name,
        )


def test_damaged_file(target: Path, tmp_path: Path, capsys) -> None:
    """A model with damaged bytes gives a result or a one-sentence error, never a fault."""
    whole = target.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(random.choice([1, 3, 20])):
            damaged[random.integers(random.choice([200, 3000, len(whole)]))] = random.integers(256)
        target.write_bytes(bytes(damaged))
        capsys.readouterr()
        status = main(["shrink", str(target)])
        err = capsys.readouterr().err
        assert (status, err.count("\n")) in ((0, 0), (2, 1)), err


def test_no_convolution(tmp_path: Path, complaint) -> None:
    g = Graph()
    path = tmp_path / "dense.onnx"
    onnx.save(g.model(["batch", 8], g.gemm("image", 8, 4)), path)
    assert "no convolution" in complaint("shrink", path)


def test_a_model_in_which_nothing_shrinks(tmp_path: Path, complaint) -> None:
    g = Graph()
    path = tmp_path / "fixed.onnx"
    onnx.save(g.model(["batch", 4, 1, 1], g.conv("image", 4, 8, 1, 1)), path)
    assert "nothing in it becomes smaller (its kernel is one pixel)" in complaint("shrink", path)
    assert main(["shrink", str(path), "--keep", "*"]) == 0


def symbolic(path: Path) -> Path:
    model = upsample(13)
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim[2:], ("height", "width")):
            dim.dim_param = name
    onnx.save(model, path)
    return path


def test_symbolic_height_needs_an_input_size(tmp_path: Path, complaint, capsys) -> None:
    path = symbolic(tmp_path / "any.onnx")
    assert "--input-size" in complaint("shrink", path)
    for given, expected in (("96", None), ("96:64", 64)):
        assert main(["shrink", str(path), "--input-size", given, "--json"]) == 0
        size = json.loads(capsys.readouterr().out)["input"]["pretrain"][2]
        assert size == expected or (expected is None and 48 <= size <= 72)
    assert main(["grow", str(tmp_path / "any.pretrain.onnx")]) == 0
    grown = onnx.load(tmp_path / "any.pretrain.grown.onnx")
    assert grown.graph.input[0].type.tensor_type.shape.dim[2].dim_param == "height"


def test_external_data_missing_or_truncated(tmp_path: Path, complaint) -> None:
    path = save_with_external_data(classic(17), tmp_path)
    data = tmp_path / "model.onnx.data"
    whole = data.read_bytes()
    for part in (0, 100, len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:part])
        assert "model.onnx" in complaint("shrink", path)
    data.unlink()
    assert "'model.onnx.data'" in complaint("shrink", path)


def test_external_data_outside_the_folder(tmp_path: Path, complaint) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = save_with_external_data(classic(17), folder)
    (folder / "model.onnx.data").rename(tmp_path / "model.onnx.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../model.onnx.data"
    path.write_bytes(model.SerializeToString())
    assert "model.onnx.data" in complaint("shrink", path)


@pytest.mark.parametrize("text", ["3", "3:", ":2", "3:2:1", "a:b", "3:4", "3:0", "-3:2", "3.5:2"])
def test_bad_kernel_table(target: Path, complaint, text: str) -> None:
    assert "kernel table" in complaint("shrink", target, f"--kernels={text}")


def test_keep_of_a_layer_that_is_not_there(target: Path, complaint) -> None:
    assert "'convv_0'" in complaint("shrink", target, "--keep", "conv_0", "--keep", "convv_0")


def test_missing_kernel_file(target: Path, complaint) -> None:
    assert "none.txt" in complaint("shrink", target, "--kernels", "none.txt")


@pytest.mark.parametrize(
    "text",
    ["0", "65", "640", "a", "40x", "x40", "40x40x40", "40:", "1.5", "-40", "", "64:0", "128:64"],
)
def test_bad_input_size(target: Path, complaint, text: str) -> None:
    assert "size" in complaint("shrink", target, f"--input-size={text}")


def test_numbers_out_of_range(target: Path, complaint) -> None:
    assert "--seed" in complaint("shrink", target, "--init", "fresh", "--seed=-1")
    assert "size" in complaint("shrink", target, "--input-size", "9" * 5000)
    assert "kernel table" in complaint("shrink", target, "--kernels", f"{'9' * 5000}:3")


def test_weights_of_constant_nodes_are_shrunk_without_a_word(tmp_path: Path, capsys) -> None:
    path = tmp_path / "constants.onnx"
    onnx.save(constant_nodes(classic(17)), path)
    assert main(["shrink", str(path), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
