"""Input files that no command can use: each gives one sentence, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from .check_output import weight_of


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


@pytest.mark.parametrize("command", ["shrink", "grow"])
def test_folder_and_missing_file(tmp_path: Path, complaint, command: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx" in complaint(command, tmp_path / "folder.onnx")
    assert "missing.onnx" in complaint(command, tmp_path / "missing.onnx")


@pytest.mark.parametrize(
    ("command", "number"),
    [("shrink", np.nan), ("grow", np.nan), ("shrink", -np.inf), ("grow", np.inf), ("shrink", 3e38)],
)
def test_weights_that_cannot_be_resized(
    target: Path, pretrain: Path, complaint, command: str, number: float
) -> None:
    path = target if command == "shrink" else pretrain
    model = onnx.load(path)
    tensor = weight_of(model, "conv_4.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[3] = number
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    text = complaint(command, path)
    assert str(path) in text
    assert "weight 'conv_4.weight' holds" in text


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


def test_a_header_of_images_that_python_cannot_read(pretrain: Path, complaint) -> None:
    """The fuzzer found it: numpy's reader raises an error of Python's tokenizer."""
    images = pretrain.with_name("images.npy")
    images.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': (".ljust(117) + b"\n")
    assert "not a .npy file of images" in complaint("grow", pretrain, "--check", images)
