"""The CUDA library has code for every GPU that it promises; its sources compile for the newest."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import graphscale

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "custom_ops" / "kernels" / "cuda"
FATBINARY = struct.pack("<I", 0xBA55ED50)
PTX, MACHINE_CODE = 1, 2

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


def images(library: Path) -> list[set[tuple[int, int]]]:
    """(PTX or MACHINE_CODE, architecture) of each fat binary, as cuobjdump lists them."""
    data = library.read_bytes()
    found = []
    start = data.find(FATBINARY)
    while start >= 0:
        header, size = struct.unpack_from("<HQ", data, start + 6)
        at, end = start + header, start + header + size
        found.append(set())
        while at < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
            (architecture,) = struct.unpack_from("<I", data, at + 28)
            found[-1].add((kind, architecture))
            at += header + size
        start = data.find(FATBINARY, end)
    return found


def build_one_kernel() -> Path:
    """Build the smallest kernel file with the flags of -DGRAPHSCALE_CUDA=ON."""
    folder = ROOT / "build" / "cuda_test"
    configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Unix Makefiles", "-DGRAPHSCALE_CUDA=ON"]
    configure += ["-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    build = ["cmake", "--build", folder, "--target", "custom_ops/kernels/cuda/one_bit.o"]
    for command in (configure, build):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.rglob("one_bit.cu.o")
    return built


@needs_nvcc
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_kernels_have_code_for_every_gpu():
    """Reads the installed CUDA library, or one kernel built here where there is none."""
    library = Path(graphscale.get_library_path()).with_name("libgraphscale_cuda.so")
    found = images(library if library.is_file() else build_one_kernel())
    assert found
    promised = {(MACHINE_CODE, 80), (MACHINE_CODE, 90), (PTX, 90)}  # PTX is for all newer ones
    assert all(promised <= each or not each for each in found)


def newest_architecture() -> str:
    command = ["nvcc", "--list-gpu-arch"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(listed.split(), key=lambda name: int(name.removeprefix("compute_")))


@needs_nvcc
def test_compiles_for_the_newest_gpu(tmp_path):
    """To PTX only: what follows, PTX to machine code, does not depend on the sources."""
    command = ["nvcc", "-std=c++17", "--expt-relaxed-constexpr", "-Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra,-Werror", "-I", ROOT / "custom_ops"]
    command += [f"-arch={newest_architecture()}", "-Xcicc", "-O0", "-ptx", "--output-directory"]
    sources = sorted(KERNELS.rglob("*.cu"))
    assert sources
    for source in sources:
        done = subprocess.run([*command, tmp_path, source], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
