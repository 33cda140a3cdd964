"""Builds custom_ops/tests, which runs the CPU kernels without Python, with sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels_under_sanitizers(sanitizer):
    if lacking := [tool for tool in ("cmake", "ctest", "c++") if shutil.which(tool) is None]:
        pytest.skip(f"needs {' and '.join(lacking)} to build the kernels with sanitizers")
    folder = ROOT / "build" / "sanitize" / sanitizer
    source = ROOT / "custom_ops" / "tests"
    for command in (
        ["cmake", "-S", source, "-B", folder, f"-DGRAPHSCALE_SANITIZE={sanitizer}"],
        ["cmake", "--build", folder, "--parallel", "2"],
        ["ctest", "--test-dir", folder, "--output-on-failure", "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
