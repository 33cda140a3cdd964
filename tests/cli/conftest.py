"""Fixtures of the commands' tests: a target, its pre-train network, and running on bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from graphscale.cli.command_line import main
from tests.zoo.handmade import classic

from .check_output import listing, sentence


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target.onnx"
    onnx.save(classic(17), path)
    return path


@pytest.fixture
def pretrain(target: Path) -> Path:
    assert main(["shrink", str(target)]) == 0
    return target.with_suffix(".pretrain.onnx")


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., str]]:
    """A function that runs a command on bad input and checks that no file changes."""

    def run(*arguments: object, status: int = 2) -> str:
        before = listing(tmp_path)
        text = sentence(capsys, *arguments, status=status)
        assert listing(tmp_path) == before
        return text

    return run
