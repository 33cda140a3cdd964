"""A missing package is one sentence that says how to install it; other failures stay."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.core.requirements import MissingPackageError, missing_package


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("torch", "pip install 'graphscale[torch]'"),
        ("torch.nn", "pip install 'graphscale[torch]'"),
        ("onnxruntime", "pip install 'graphscale[cpu]'"),
        ("PIL", "pip install 'graphscale[train]'"),
        ("torchvision.transforms", "pip install torchvision"),
        ("matplotlib.pyplot", "pip install 'graphscale[train]'"),
    ],
)
def test_how_to_install_it(name: str, command: str) -> None:
    error = missing_package(ModuleNotFoundError("No module", name=name), "a session")
    assert isinstance(error, GraphScaleError)
    assert isinstance(error, ImportError)
    assert (type(error), error.name) == (MissingPackageError, name)
    assert str(error).startswith(f"a session needs {name.partition('.')[0]}: ")
    assert command in str(error)


def test_an_incomplete_onnxruntime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left where one of its two packages was removed: a folder without modules."""
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(MissingPackageError, match=r"a session needs .* pip install --force-re"):
        graphscale.session(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'graphscale\[cpu\]'"):
        graphscale.session(b"")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere"),
        ModuleNotFoundError("No module named 'torchaudio'", name="torchaudio"),
        ModuleNotFoundError("no name"),
        ImportError("libcudart.so.12: cannot open shared object file", name="torch"),
    ],
)
def test_other_errors_are_returned_unchanged(error: ImportError) -> None:
    """A torch that is installed and damaged must say what is wrong with it."""
    assert missing_package(error, "a session") is error
