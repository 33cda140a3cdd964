"""The error for a package that only a part of graphscale needs and that is not installed."""

from __future__ import annotations

from typing import Any

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


def onnxruntime_for(user: str) -> Any:
    """The package onnxruntime, which `user` (as in 'a session') needs.

    Raises:
        MissingPackageError: it is not installed, or incomplete. onnxruntime and onnxruntime-gpu
            install the same files, so that removing one of them damages the other.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_package(error, user) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingPackageError(
            f"{user} needs onnxruntime, whose installation is incomplete, as after one of "
            "onnxruntime and onnxruntime-gpu was removed; pip install --force-reinstall --no-deps "
            "the other",
            name="onnxruntime",
        )
    return onnxruntime


def missing_package(error: ImportError, user: str) -> ImportError:
    """The error to raise for a failed import.

    `error` itself, unless one of the packages above is missing: then one sentence that says that
    `user` (as in 'a session') needs it, and how to install it.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in _INSTALL:
        return error
    return MissingPackageError(f"{user} needs {package}: {_INSTALL[package]}", name=error.name)
