"""graphscale completion: what the scripts complete, in the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from graphscale.cli import main

COMPLETE = """
. ./script
COMP_WORDS=(graphscale "$@")
COMP_CWORD=$#
_graphscale
echo "${COMPREPLY[*]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ([""], "shrink grow accelerate train completion"),
        (["sh"], "shrink"),
        (["shrink", "--in"], "--input-size --init"),
        (["shrink", "model.onnx", "--init", ""], "resize fresh"),
        (["accelerate", "model.onnx", "--me"], "--measure-again"),
        (["completion", ""], "bash zsh fish"),
        (["grow", "model.onnx", "-o", ""], ""),  # bash completes names of files
        (["unknown", "--"], ""),
    ],
)
def test_bash(words: list[str], completed: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "script").write_text(script("bash", capsys))
    command = ["bash", "-c", COMPLETE, "bash", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{completed}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_it(shell: str, tmp_path: Path, capsys) -> None:
    text = script(shell, capsys)
    assert "--measure-again" in text or "-l measure-again" in text
    assert "resize fresh" in text
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(text)
        done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "bash" in capsys.readouterr().err
