"""What ships: the wheel and the source distribution hold each module once, and work alone.

Both are made for real, the library by CMake from the source distribution's files. That takes more
than a minute, once.
"""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import graphscale

ROOT = Path(__file__).parents[1]
# One worker builds for all of these tests.
pytestmark = pytest.mark.xdist_group("packaging")
pytest.importorskip("scikit_build_core", reason="the packages are built with scikit-build-core")

BUILD = """
import sys
import scikit_build_core.build as backend
print(getattr(backend, sys.argv[1])(sys.argv[2]))
"""


# The kernels' speed is tested nowhere here: at -O1 they take a third of the time to compile.
QUICKLY = {"SKBUILD_CMAKE_BUILD_TYPE": "None", "CXXFLAGS": "-O1"}


def build(kind: str, source: Path, folder: Path) -> Path:
    """What the build backend makes of `source`: 'build_wheel' or 'build_sdist'."""
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    environment = os.environ | QUICKLY
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / done.stdout.splitlines()[-1]


def python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


@pytest.fixture(scope="session")
def checkout() -> set[str]:
    """The modules that are to ship, each by the one name that it has here."""
    rooms = {f"graphscale/{name}" for name in python_files(ROOT / "graphscale")}
    passes = {f"passes/{name}" for name in python_files(ROOT / "passes")}
    return passes | {name for name in rooms if not name.startswith("graphscale/passes/")}


@pytest.fixture(scope="session")
def sdist(checkout, tmp_path_factory) -> Path:
    return build("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def unpacked(sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    headers = ROOT / "build" / "onnxruntime"  # fetched once, not for each build
    if headers.is_dir():
        (found / "build").mkdir(exist_ok=True)
        (found / "build" / "onnxruntime").symlink_to(headers)
    return found


@pytest.fixture(scope="session")
def wheel(unpacked, tmp_path_factory) -> Path:
    return build("build_wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_each_module_once(wheel: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = Counter(archive.namelist())
    assert max(names.values()) == 1
    python = {name for name in names if name.endswith(".py")}
    passes = {f"graphscale/passes/{name}" for name in python_files(unpacked / "passes")}
    rooms = {f"graphscale/{name}" for name in python_files(unpacked / "graphscale")}
    assert python == passes | {name for name in rooms if not name.startswith("graphscale/passes/")}
    assert {"graphscale/core/plan.py", "graphscale/passes/__init__.py"} <= python
    others = {name for name in names if name.endswith((".py", "/")) or ".dist-info/" in name}
    assert set(names) - others == {"graphscale/py.typed", "graphscale/lib/libgraphscale.so"}


def test_the_source_distribution_holds_each_file_once(sdist: Path, checkout: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = Counter(member.name.partition("/")[2] for member in members)
    assert max(names.values()) == 1
    modules = {name for name in names if name.startswith(("graphscale/", "passes/"))}
    assert {name for name in modules if name.endswith(".py")} == checkout
    assert not [name for name in names if name.startswith("graphscale/passes/")]
    (link,) = [member for member in members if member.name.endswith("/graphscale/passes")]
    assert link.issym()
    assert link.linkname == "../passes"
    built = [name for name in names if name.endswith((".so", ".o", ".pyc"))]
    assert not built
    assert not [name for name in names if name.startswith("build/")]


def test_the_metadata_keep_their_promises(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    metadata = email.message_from_string(text)
    assert metadata["Version"] == graphscale.__version__
    assert "graphscale developers" in text
    required = [each for each in metadata.get_all("Requires-Dist") if "extra ==" not in each]
    assert not [each for each in required if each.startswith(("onnxruntime", "torch"))]
    assert {"cpu", "gpu", "torch"} <= set(metadata.get_all("Provides-Extra"))
    assert "Operating System :: POSIX :: Linux" in metadata.get_all("Classifier")


def test_the_wheel_fits_a_manylinux_tag(wheel: Path) -> None:
    """Its library needs nothing but what every Linux system of some age has."""
    pytest.importorskip("auditwheel")
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert re.search(r'consistent with the following platform tag: "manylinux_2_\d+_', said), said


ALONE = """
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import graphscale
import graphscale.cli
import graphscale.passes.shrink

package = Path(graphscale.__file__).parent
assert package.parent == Path(sys.argv[1]), package
assert Path(graphscale.passes.__file__).parent == package / "passes"
assert Path(graphscale.get_library_path()).parent == package / "lib"
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy")
nodes = [helper.make_node("Maxout", ["x"], ["y"], domain="graphscale", width=2, stride=2)]
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("graphscale", 1)]
model = helper.make_model(
    helper.make_graph(nodes, "alone", [x], [y]), opset_imports=opsets, ir_version=9
)
data = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
(result,) = graphscale.session(model).run(None, {"x": data})
print(result.size, *(m for m in ("torch", "tests", "benchmarks") if m in sys.modules))
"""


def test_an_installed_wheel_needs_no_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # -S: no .pth file of this environment leads to the checkout; its packages are named instead.
    paths = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", ALONE, str(site)],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4"]
