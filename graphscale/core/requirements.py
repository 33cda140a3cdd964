"""The error for a package that only a part of graphscale needs and that is not installed."""

from __future__ import annotations

from graphscale.core.errors import GraphScaleError

_INSTALL = {
    "onnxruntime": "neither onnxruntime nor onnxruntime-gpu is installed; "
    "pip install 'graphscale[cpu]' or 'graphscale[gpu]'",
    "torch": "torch is not installed; pip install 'graphscale[torch]'",
    "PIL": "Pillow is not installed; pip install 'graphscale[train]'",
    "torchvision": "torchvision is not installed; pip install torchvision, from the index that "
    "torch came from",
    "matplotlib": "matplotlib is not installed; pip install 'graphscale[train]'",
}


class MissingPackageError(GraphScaleError, ImportError):
    """A package that this part of graphscale needs is not installed; says how to install it."""


def missing_package(error: ImportError, user: str) -> ImportError:
    """The error to raise for a failed import.

    `error` itself, unless one of the packages above is missing: then one sentence that says that
    `user` (as in 'a session') needs it, and how to install it.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in _INSTALL:
        return error
    return MissingPackageError(f"{user} needs {package}: {_INSTALL[package]}", name=error.name)
