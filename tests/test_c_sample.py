"""samples/session.c runs a model with the library, as docs/how_to/without_python.md says.

Headers of onnxruntime and the shared library inside its wheel are all that it is built from.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import onnx
import onnxruntime
import pytest

from graphscale import get_library_path

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "build" / "onnxruntime" / "include"
MODEL = """
    <ir_version: 10, opset_import: ["" : 21, "graphscale" : 1]>
    agraph (float[1, 4, 2] x) => (float[1, 2, 2] y) {
        y = graphscale.Maxout <width: int = 2, stride: int = 2> (x)
    }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = Path(onnxruntime.__file__).parent / "capi"
    runtime = next(folder.glob("libonnxruntime.so*"), None)
    if shutil.which("cc") is None or runtime is None or not HEADERS.is_dir():
        pytest.skip("needs a C compiler, onnxruntime's headers and its shared library")
    made = tmp_path_factory.mktemp("c") / "session"
    # The wheel's file is loaded by its SONAME, which has a shorter version than its name.
    (made.parent / "libonnxruntime.so.1").symlink_to(runtime)
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", HEADERS]
    command += [ROOT / "samples" / "session.c", "-o", made, runtime, f"-Wl,-rpath,{made.parent}"]
    subprocess.run(command, check=True)
    return made


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def test_a_model_with_our_operators_runs_from_c(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    done = run(program, get_library_path(), path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "3", "6", "7"]  # the larger of two neighbouring channels


def test_what_is_missing_is_said(program: Path, tmp_path: Path) -> None:
    assert run(program).returncode == 2
    done = run(program, tmp_path / "none.so", tmp_path / "none.onnx")
    assert done.returncode == 1
    assert "none.so" in done.stderr
