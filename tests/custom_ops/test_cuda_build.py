"""The CUDA library compiles without a warning for every GPU it promises, where nvcc is."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "custom_ops" / "kernels" / "cuda"


def newest_architecture():
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True).stdout
    return max(int(line.removeprefix("compute_")) for line in listed.split() if line[8:].isdigit())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("source", sorted(KERNELS.rglob("*.cu")), ids=lambda path: path.stem)
def test_compiles_for_every_architecture(source, tmp_path):
    targets = [80, 90, newest_architecture()]
    command = ["nvcc", "-std=c++17", "-O2", "--expt-relaxed-constexpr", "-Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra,-Werror,-fPIC", "-I", ROOT / "custom_ops"]
    for target in targets:
        command += ["-gencode", f"arch=compute_{target},code=sm_{target}"]
    command += ["-c", source, "-o", tmp_path / "kernels.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
