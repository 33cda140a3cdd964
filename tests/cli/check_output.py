"""Helpers of the commands' tests: files in a folder, a command's one-line error, a weight."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphscale.cli.command_line import main

Listing = dict[str, bytes]


def listing(folder: Path) -> Listing:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def sentence(capsys: pytest.CaptureFixture, *arguments: object, status: int = 2) -> str:
    """The error message of a command, which must print one line and nothing else."""
    capsys.readouterr()
    assert main([str(each) for each in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("graphscale: ")
    assert err.count("\n") == 1
    return err.removeprefix("graphscale: ").rstrip("\n")


def weight_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)
