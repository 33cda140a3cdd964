"""Packages that only a part of graphscale needs, and the sentence for where one is missing."""

from __future__ import annotations

from graphscale.core.errors import GraphScaleError

_INSTALL = {
    "onnxruntime": "neither onnxruntime nor onnxruntime-gpu is installed; "
    "pip install 'graphscale[cpu]' or 'graphscale[gpu]'",
    "torch": "torch is not installed; pip install 'graphscale[torch]'",
}


class MissingPackageError(GraphScaleError, ImportError):
    """A package is not installed that this part of graphscale needs; says which and how."""


def missing_package(error: ImportError, user: str) -> ImportError:
    """`error`, or where it is about one of those packages, what `user` needs in one sentence."""
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in _INSTALL:
        return error
    return MissingPackageError(f"{user} needs {package}: {_INSTALL[package]}", name=error.name)
