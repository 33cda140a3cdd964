"""The network to train, from an ONNX file or a function, and what is refused in one sentence."""

import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from graphscale import GraphScaleError
from graphscale.training.target import read_target


def write(path: Path, inputs: str = "float[N, 3, 16, 12] x", scores: int = 2) -> str:
    """An ONNX file of a small classifier."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float[N, {scores}] y) {{
            c = Conv <strides = [2, 2], pads = [2, 2, 2, 2]> (x, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = Gemm (f, fc)
        }}"""
    )
    for name, shape in (("w", (4, 3, 5, 5)), ("fc", (4, scores))):
        array = np.random.default_rng(0).standard_normal(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return str(path)


def test_a_file_says_its_size(tmp_path: Path) -> None:
    target = read_target(write(tmp_path / "a.onnx"), 2)
    assert target.example.shape == (1, 3, 16, 12)
    assert (target.channels, target.from_onnx, target.hints) == (3, True, ())
    assert target.network.training
    assert set(target.network.state_dict()) == {"w", "fc"}


def test_an_open_size_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", "float[N, 3, H, W] x")
    assert read_target(path, 2, (16, 20)).example.shape == (1, 3, 16, 20)
    with pytest.raises(GraphScaleError, match="leaves its image size open; give it with --image"):
        read_target(path, 2)


@pytest.mark.parametrize(
    ("inputs", "size", "sentence"),
    [
        ("float[N, 3, 16, 12] x", (16, 16), "takes images of 16×12, not of --image-size 16×16"),
        ("float[N, 3, 16, 12] x, float[N] z", None, "needs one input of N×C×H×W images"),
        ("float[N, C, 16, 12] x", None, "needs one input of N×C×H×W images"),
        ("float[N, 3, 16] x", None, "needs one input of N×C×H×W images"),
    ],
)
def test_files_that_cannot_be_trained(
    tmp_path: Path, inputs: str, size: tuple | None, sentence: str
) -> None:
    with pytest.raises(GraphScaleError, match=sentence):
        read_target(write(tmp_path / "a.onnx", inputs), 2, size)


def test_another_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(GraphScaleError, match="has 2 classes and the folder 5; give a network"):
        read_target(write(tmp_path / "a.onnx"), 5)


def head(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes))


class Networks:
    """A name with a dot: module:Networks.small."""

    @staticmethod
    def small(num_classes: int) -> nn.Module:
        return head(num_classes)


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("functions")
    module.Networks = Networks
    module.three = lambda: head(3)
    module.number = 3
    module.wrong = lambda: torch.zeros(2)
    module.needy = lambda depth: head()
    module.maps = lambda: nn.Conv2d(1, 3, 1)
    monkeypatch.setitem(sys.modules, "functions", module)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_function_is_told_the_classes_where_it_asks() -> None:
    target = read_target("functions:Networks.small", 7, (8, 10), channels=1)
    assert target.network[2].out_features == 7
    assert (target.example.shape, target.from_onnx) == ((1, 1, 8, 10), False)
    assert read_target("functions:three", 3, (8, 8), 1).network.training
    assert "" in sys.path  # a file in the working directory is found


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("functions:absent", "cannot be imported .*give an ONNX file or module:callable"),
        ("no_such_module:make", "cannot be imported"),
        ("functions:number", "is int, not a function"),
        ("functions:wrong", "returned Tensor, which is no torch module"),
        ("functions:needy", r"makes no network \(TypeError: .*depth"),
        ("functions:three", "has 3 classes and the folder 4"),
        ("functions:maps", "one output, N×classes"),
    ],
)
def test_functions_that_give_no_target(name: str, sentence: str) -> None:
    with pytest.raises(GraphScaleError, match=sentence):
        read_target(name, 4, (8, 8), channels=1)


def test_a_function_needs_a_size_and_the_right_channels() -> None:
    with pytest.raises(GraphScaleError, match="--image-size"):
        read_target("functions:three", 3)
    with pytest.raises(GraphScaleError, match=r"does not run on images of shape .*--channels"):
        read_target("functions:maps", 3, (8, 8), channels=2)
