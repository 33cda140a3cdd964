"""The CUDA kernels without a GPU: built as C++ for the host, called on torch CPU tensors.

``custom_ops/kernels/cuda/emulation/emulation.h`` runs blocks, threads, barriers and tensor-core
fragments one after another on the host. The library built with it stands in for
libgraphscale_cuda.so, so a call takes the same steps as on a GPU: C API, kernel look-up, choice of
the algorithm, launches. `build` makes the library, `Emulation` lets operators use it.
"""

import ctypes
import fcntl
import shutil
import subprocess
from pathlib import Path

import graphscale
from graphscale.layers import library

ROOT = Path(__file__).parents[2]
_libc = ctypes.CDLL(None)
_libc.aligned_alloc.restype = ctypes.c_void_p
_libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def missing_tools() -> str:
    """Says which tools for building the emulated library are missing; empty where none is."""
    lacking = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    return f"needs {' and '.join(lacking)} to build the emulated CUDA kernels" if lacking else ""


def build() -> Path:
    """Build a folder with libgraphscale.so and the emulated kernels as its CUDA library."""
    folder = ROOT / "build" / "emulation"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two test processes build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-S", ROOT / "custom_ops" / "kernels" / "cuda" / "emulation", "-B", folder],
            ["cmake", "--build", folder, "--parallel", "2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        ours = folder / "libgraphscale.so"
        installed = Path(graphscale.get_library_path())
        if not ours.exists() or ours.stat().st_mtime < installed.stat().st_mtime:
            shutil.copy(installed, folder / "fresh")
            (folder / "fresh").replace(ours)
    return folder


class Emulation:
    """Lets graphscale's operators run their CUDA kernels on CPU tensors."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(folder / "libgraphscale.so"))
        self._library.graphscale_cuda_error.restype = ctypes.c_char_p
        self._allocate = library._Allocate(
            lambda size: _libc.aligned_alloc(64, (size + 63) // 64 * 64)
        )
        self._release = library._Release(_libc.free)

    def use(self, monkeypatch) -> None:
        """Run all operators by the emulated kernels until the test ends."""
        place = ctypes.byref(library._Place(1, 1, None, self._allocate, self._release))
        monkeypatch.setattr(library, "open_library", lambda: self._library)
        monkeypatch.setattr(library, "_place", lambda device: place)
