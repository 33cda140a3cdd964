"""Output files of every command: whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from .check_output import listing, sentence


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_an_output_without_a_name(target: Path, pretrain: Path, complaint, output: str) -> None:
    assert "-o" in complaint("shrink", target, "-o", output)
    assert "-o" in complaint("grow", pretrain, "-o", output)


def test_an_output_that_is_an_input(target: Path, pretrain: Path, complaint) -> None:
    """By whatever name: the input would be lost."""
    link = target.with_name("link.onnx")
    link.symlink_to(target)
    for output in (target, target.parent / "." / target.name, link):
        assert "another name with -o" in complaint("shrink", target, "-o", output)
        assert "another name with -o" in complaint("accelerate", target, "-o", output)
    plan = target.with_suffix(".pretrain.plan.json")
    assert "another name" in complaint("grow", pretrain, "--target", target, "-o", target)
    assert "another name" in complaint("grow", pretrain, "--plan", plan, "-o", plan)
    table = target.with_name("table.plan.json")
    table.write_text("5:3")
    assert "another name" in complaint(
        "shrink", target, "--kernels", table, "-o", target.with_name("table.onnx")
    )


def test_an_output_that_is_the_inputs_external_data(target: Path, complaint) -> None:
    model = onnx.load(target)
    onnx.save(model, target, save_as_external_data=True, location="weights.bin", size_threshold=1)
    weights = target.with_name("weights.bin")
    assert "weights.bin would be written" in complaint("shrink", target, "-o", weights)


def test_missing_output_folder(target: Path, tmp_path: Path, complaint) -> None:
    assert "nowhere" in complaint("shrink", target, "-o", tmp_path / "nowhere" / "small.onnx")
    assert str(tmp_path) in complaint("shrink", target, "-o", tmp_path)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Run the test as a user without rights, because root may write everywhere."""
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
    """A limit on the size of files acts like a full disk: a write fails half-way."""
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
