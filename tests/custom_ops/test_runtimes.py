"""One build of the library serves every onnxruntime: tests with the oldest and newest supported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ["tests/custom_ops/test_onnxruntime.py"]
TESTS += [f"tests/layers/test_{name}.py" for name in ("hierarchical_softmax", "lookup_table")]


@pytest.mark.parametrize("version", ["1.24.1", "1.31.1"])
def test_other_versions_of_onnxruntime(version):
    folder = ROOT / "build" / "runtimes" / version
    if not folder.is_dir():
        pytest.skip(f"onnxruntime {version} is not there; 'make test' installs it")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    for command in (
        ["-c", f"import onnxruntime; assert onnxruntime.__version__ == {version!r}"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
    ):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
