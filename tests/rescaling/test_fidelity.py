"""grow --check on outputs and inputs of every form: which are compared, and along which axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, parser

import graphscale
from graphscale.cli import main
from graphscale.core.errors import GraphScaleError
from graphscale.rescaling.fidelity import Fidelity, check_images, compare


def model(body: str, output: str, dtype: str = "float", size: str = "40, 40") -> onnx.ModelProto:
    first = "i = Cast <to = 1> (x)" if dtype != "float" else "i = Identity (x)"
    made = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({dtype}[N, 3, {size}] x) => (float[{output}] y)
        <int64[3] shape = {{0, 4, -1}}> {{
            {first}
            m = Conv <pads = [2, 2, 2, 2], strides = [2, 2]> (i, w)
            {body}
        }}"""
    )
    kernel = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "w"))
    return made


def compared(made: onnx.ModelProto, folder: Path, **options) -> list[Fidelity]:
    """How the network that is grown from the shrunk one differs from it."""
    small = folder / "small.onnx"
    onnx.save(graphscale.shrink(made, **options), small)
    grown = graphscale.grow(onnx.load(small))
    plan = graphscale.plan(made, **options)
    return compare(small, ir.from_proto(grown), plan, check_images(plan))


def checked(made: onnx.ModelProto, folder: Path, **options) -> list[str]:
    """The outputs that are compared."""
    found = compared(made, folder, **options)
    assert all(0 <= each.difference < 1 and each.correlation > 0.5 for each in found)
    return [each.output for each in found]


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("y = Relu (m)", "N, 4, 20, 20"),
        ("y = Transpose <perm = [0, 2, 3, 1]> (m)", "N, 20, 20, 4"),
        ("y = ReduceMean <axes = [2], keepdims = 0> (m)", "N, 4, 20"),
    ],
)
def test_compared(body: str, output: str, tmp_path: Path) -> None:
    assert checked(model(body, output), tmp_path) == ["y"]


def test_constant_outputs_have_no_correlation(tmp_path: Path) -> None:
    made = model("t = Tanh (m) z = Sub (t, t) y = Exp (z)", "N, 4, 20, 20")
    (found,) = compared(made, tmp_path)
    assert found.correlation is None
    assert found.difference == 0


def test_outputs_that_are_not_finite_are_not_compared(tmp_path: Path) -> None:
    made = model("t = Relu (m) y = Log (t)", "N, 4, 20, 20")
    (found,) = compared(made, tmp_path)
    assert found.difference is found.correlation is None


def test_maps_laid_end_to_end_are_left_out(tmp_path: Path) -> None:
    made = model("y = Reshape (m, shape)", "N, 4, 400")
    assert checked(made, tmp_path) == []


def test_command_names_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.onnx"
    onnx.save(graphscale.shrink(model("y = Reshape (m, shape)", "N, 4, 400")), small)
    assert main(["grow", str(small), "--check"]) == 0
    assert "leaves out y" in capsys.readouterr().err


def test_networks_of_unlike_outputs_are_named(tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    onnx.save(graphscale.shrink(model("y = Relu (m)", "N, 4, 20, 20")), small)
    grown = ir.from_proto(graphscale.grow(onnx.load(small)))
    plan = graphscale.plan(model("y = Relu (m)", "N, 4, 20, 20"))
    grown.graph.outputs.append(grown.graph.node(1).outputs[0])
    with pytest.raises(GraphScaleError, match=r"small\.onnx: has 1 outputs, but .* 2"):
        compare(small, grown, plan, check_images(plan))


def test_8_bit_images(tmp_path: Path) -> None:
    made = model("y = GlobalAveragePool (m)", "N, 4, 1, 1", dtype="uint8")
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert checked(made, tmp_path) == ["y"]


def test_an_open_size_gets_a_multiple_of_the_stride(tmp_path: Path) -> None:
    """A map is halved twice and enlarged by four: 36 and 44 work, 42 does not."""
    made = model(
        "d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (m)\n"
        'u = Resize <mode = "nearest"> (d, , scales)\ny = Add (m, u)',
        "N, 4, H2, W2",
        size="H, W",
    )
    scales = np.array([1, 1, 2, 2], np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(scales, "scales"))
    assert checked(made, tmp_path, input_size=64) == ["y"]


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e39])
def test_images_of_numbers_that_no_network_takes(number: float, tmp_path: Path) -> None:
    images = np.zeros((2, 3, 40, 40))
    images[1, 2, 3, 4] = number
    np.save(tmp_path / "images.npy", images)
    plan = graphscale.plan(model("y = Relu (m)", "N, 4, 20, 20"))
    with pytest.raises(GraphScaleError, match=r"images\.npy: holds NaN or numbers beyond"):
        check_images(plan, tmp_path / "images.npy")


@pytest.mark.parametrize("last", [False, True])
def test_images_of_a_network_whose_width_is_kept(last: bool, tmp_path: Path) -> None:
    """The images are N×C×H×W, however the network takes them."""
    first = "Transpose <perm = [0, 3, 1, 2]> (x)" if last else "Identity (x)"
    made = model("y = Relu (m)", "N, 4, 20, 16", size="40, 32")
    if last:
        text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 40, 32, 3] x) => '
        made.graph.input[0].CopyFrom(parser.parse_model(text + "(float[N] x) {}").graph.input[0])
    node = parser.parse_node(f"i = {first}")
    made.graph.node[0].CopyFrom(node)
    images = np.random.default_rng(0).standard_normal((4, 3, 40, 32)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    small = tmp_path / "small.onnx"
    onnx.save(graphscale.shrink(made, input_size=(28, 32)), small)
    plan = graphscale.plan(made, input_size=(28, 32))
    read = check_images(plan, tmp_path / "images.npy")
    np.testing.assert_array_equal(read, images)
    assert check_images(plan).shape[1:] == (3, 40, 32)
    (found,) = compare(small, ir.from_proto(graphscale.grow(onnx.load(small))), plan, read)
    assert found.difference < 1
