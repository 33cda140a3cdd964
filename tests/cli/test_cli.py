"""The command: what it writes, prints and answers, and that bad input leaves nothing behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphscale.cli.command_line import main
from tests.zoo.handmade import Graph, classic, save_with_external_data, upsample

Listing = dict[str, bytes]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target.onnx"
    onnx.save(classic(17), path)
    return path


@pytest.fixture
def pretrain(target: Path) -> Path:
    assert main(["shrink", str(target)]) == 0
    return target.with_suffix(".pretrain.onnx")


def listing(folder: Path) -> Listing:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def sentence(capsys: pytest.CaptureFixture, *arguments: object, status: int = 2) -> str:
    """What the command complains of; one line and nothing else."""
    capsys.readouterr()
    assert main([str(each) for each in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("graphscale: ")
    assert err.count("\n") == 1
    return err.removeprefix("graphscale: ").rstrip("\n")


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., str]]:
    """Run a command on bad input; the files around it stay as they are."""

    def run(*arguments: object, status: int = 2) -> str:
        before = listing(tmp_path)
        text = sentence(capsys, *arguments, status=status)
        assert listing(tmp_path) == before
        return text

    return run


def weight_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


# --- what shrink writes and shows -----------------------------------------------------------------


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


# --- what grow writes and shows -------------------------------------------------------------------


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


def test_check_compares_both_networks_on_the_same_pictures(
    pretrain: Path, tmp_path, capsys
) -> None:
    capsys.readouterr()
    pictures = tmp_path / "pictures.npy"
    np.save(pictures, np.random.default_rng(0).standard_normal((5, 3, 50, 60)).astype(np.float32))
    for given, count in (([], 16), ([str(pictures)], 5)):
        assert main(["grow", str(pretrain), "--json", "--check", *given]) == 0
        (check,) = json.loads(capsys.readouterr().out)["check"]
        assert check["pictures"] == count
        assert 0 <= check["difference"] < 10
        assert -1 <= check["correlation"] <= 1


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest", "align-corners"])
def test_resize_methods_keep_the_response_to_a_constant(pretrain: Path, method: str) -> None:
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
    """The checkpoint as foreign training code writes it: no metadata, perhaps other names."""
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


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["shrink", "grow"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 5000,
        b"this is text, and no model\n" * 50,
        b"PK\x03\x04" + bytes(range(256)) * 20,
    ],
    ids=["empty", "zeros", "text", "zip"],
)
def test_no_onnx_file(tmp_path: Path, complaint, command: str, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    assert str(path) in complaint(command, path)


@pytest.mark.parametrize("command", ["shrink", "grow"])
def test_truncated_file(target: Path, complaint, command: str) -> None:
    whole = target.read_bytes()
    for part in (0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999, 0.99999):
        target.write_bytes(whole[: int(part * len(whole))])
        assert str(target) in complaint(command, target)


def test_damaged_file(target: Path, tmp_path: Path, capsys) -> None:
    """Whatever a damaged byte makes of the model, the answer is a result or one sentence."""
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


@pytest.mark.parametrize("command", ["shrink", "grow"])
def test_folder_and_missing_file(tmp_path: Path, complaint, command: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx" in complaint(command, tmp_path / "folder.onnx")
    assert "missing.onnx" in complaint(command, tmp_path / "missing.onnx")


def test_no_convolution(tmp_path: Path, complaint) -> None:
    g = Graph()
    path = tmp_path / "dense.onnx"
    onnx.save(g.model(["batch", 8], g.gemm("image", 8, 4)), path)
    assert "no convolution" in complaint("shrink", path)


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


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinite_weights(target: Path, pretrain: Path, complaint, number: float) -> None:
    for command, path in (("shrink", target), ("grow", pretrain)):
        model = onnx.load(path)
        tensor = weight_of(model, "conv_4.weight")
        array = numpy_helper.to_array(tensor).copy()
        array[3, 2, 1, 0] = number
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, path)
        if np.isnan(number):
            assert "'conv_4.weight'" in complaint(command, path)


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
    """`complaint` sees that no grown model is written."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path.with_suffix(".npz"), **content)
        path.with_suffix(".npz").rename(path)
    elif content is not None:
        np.save(path, content)
    assert name in complaint("grow", pretrain, "--check", path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["shrink", "PIPE"],
        ["shrink", "target.onnx", "--kernels", "PIPE"],
        ["grow", "PIPE"],
        ["grow", "target.pretrain.onnx", "--plan", "PIPE"],
        ["grow", "target.pretrain.onnx", "--check", "PIPE"],
        ["accelerate", "PIPE"],
    ],
)
def test_a_pipe_is_not_waited_for(pretrain: Path, tmp_path: Path, complaint, arguments) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = {"PIPE": "pipe"} | {name: name for name in arguments if name.endswith(".onnx")}
    given = [tmp_path / paths[name] if name in paths else name for name in arguments]
    assert "pipe: " in complaint(*given)


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_an_output_without_a_name(target: Path, pretrain: Path, complaint, output: str) -> None:
    assert "-o" in complaint("shrink", target, "-o", output)
    assert "-o" in complaint("grow", pretrain, "-o", output)


def test_numbers_that_are_none(target: Path, complaint) -> None:
    assert "--seed" in complaint("shrink", target, "--init", "fresh", "--seed=-1")
    assert "size" in complaint("shrink", target, "--input-size", "9" * 5000)
    assert "kernel table" in complaint("shrink", target, "--kernels", f"{'9' * 5000}:3")


def test_unknown_resize_method(pretrain: Path, complaint) -> None:
    assert "bicubic" in complaint("grow", pretrain, "--resize", "lanczos")


def test_unknown_options_exit_with_2(target: Path, capsys) -> None:
    for arguments in (["shrink"], ["shrink", str(target), "--init", "zero"], ["melt", "x"], []):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2


def test_output_over_the_input(target: Path, complaint) -> None:
    """The weights are read while the output is written: into another file, renamed at the end."""
    assert main(["shrink", str(target), "-o", str(target)]) == 0
    onnx.checker.check_model(str(target), full_check=True)


def test_missing_output_folder(target: Path, tmp_path: Path, complaint) -> None:
    assert "nowhere" in complaint("shrink", target, "-o", tmp_path / "nowhere" / "small.onnx")
    assert str(tmp_path) in complaint("shrink", target, "-o", tmp_path)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Root may write everywhere: take its rights away."""
    root = os.geteuid() == 0
    folder = tmp_path
    while root and folder != Path(tempfile.gettempdir()) and folder != folder.parent:
        folder.chmod(0o755)
        folder = folder.parent
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


def test_unwritable_folder(target: Path, pretrain: Path, request, capsys) -> None:
    folder = target.parent / "locked"
    folder.mkdir(mode=0o555)
    request.getfixturevalue("as_nobody")
    assert "locked" in sentence(capsys, "shrink", target, "-o", folder / "small.onnx")
    assert "locked" in sentence(capsys, "grow", pretrain, "-o", folder / "big.onnx")
    assert listing(folder) == {}


@pytest.mark.parametrize("space", [100, 2_000, 5_000, 20_000])
def test_full_disk(target: Path, tmp_path: Path, space: int) -> None:
    """A limit on the size of files stands for the disk: the system refuses the write half-way."""
    for name in ("target.pretrain.onnx", "target.pretrain.plan.json"):
        (tmp_path / name).write_bytes(b"what was here before")
    before = listing(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "graphscale", "shrink", str(target)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (space, space)),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert listing(tmp_path) == before


INTERRUPTED = """
import os, signal, sys
import graphscale.core.model_files
# A shell that runs the tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
write = graphscale.core.model_files._write
def interrupt(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
graphscale.core.model_files._write = interrupt
from graphscale.cli.command_line import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["shrink", "grow"])
def test_ctrl_c_while_writing(target: Path, pretrain: Path, tmp_path: Path, command: str) -> None:
    before = listing(tmp_path)
    path = target if command == "shrink" else pretrain
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, command, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 130
    assert done.stderr == "graphscale: interrupted; nothing was written\n"
    assert listing(tmp_path) == before
