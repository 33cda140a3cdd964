"""Fixtures that build parts of the kernel library, and run its CUDA kernels on the host."""

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.custom_ops import emulation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build_target() -> Callable[[str], Path]:
    """Builds a target of CMakeLists.txt that is not installed; returns the folder that holds it."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    folder = ROOT / "build" / "lib"  # that of `make lib`, whose object files serve here, too

    def build(target: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:  # two test processes build it once
            fcntl.flock(lock, fcntl.LOCK_EX)
            for command in (
                ["cmake", "-S", ROOT, "-B", folder],
                ["cmake", "--build", folder, "--parallel", "2", "--target", target],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return build


@pytest.fixture(scope="session")
def emulated_library():
    if reason := emulation.missing_tools():
        pytest.skip(reason)
    return emulation.Emulation(emulation.build())


@pytest.fixture(params=["forward", "reversed"])
def on_cuda(request, emulated_library, monkeypatch):
    """Runs an operator by its emulated CUDA kernel.

    Every test runs with the threads of a block in rising and in falling order: a missing barrier
    shows in one of them.
    """
    if request.param == "reversed":
        monkeypatch.setenv("GRAPHSCALE_EMULATION_REVERSED", "1")

    def run(operator, *args, **kwargs):
        with monkeypatch.context() as patch:
            emulated_library.use(patch)
            return operator(*args, **kwargs)

    return run
