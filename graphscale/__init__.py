"""graphscale: kernel rescaling and fbcunn's layers for ONNX and torch.

This file lists the public names and the module that defines each. A name is imported when it is
first used, so that ``import graphscale`` loads neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "GraphScaleError": "core.errors",
    "Plan": "core.plan",
    "accelerate": "acceleration.accelerate_model",
    "plan": "api",
    "shrink": "api",
    "grow": "api",
    "grow_": "training.grow_in_place",
    "load": "convert",
    "save": "convert",
    "export": "layers.export",
    "get_library_path": "core.runtime",
    "session": "core.runtime",
}

__all__ = [
    "GraphScaleError",
    "Plan",
    "__version__",
    "accelerate",
    "export",
    "get_library_path",
    "grow",
    "grow_",
    "load",
    "plan",
    "save",
    "session",
    "shrink",
]

if TYPE_CHECKING:
    from graphscale.acceleration.accelerate_model import accelerate
    from graphscale.api import grow, plan, shrink
    from graphscale.convert import load, save
    from graphscale.core.errors import GraphScaleError
    from graphscale.core.plan import Plan
    from graphscale.core.runtime import get_library_path, session
    from graphscale.layers.export import export
    from graphscale.training.grow_in_place import grow_


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'graphscale' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"graphscale.{_PUBLIC[name]}"), name)
    except ModuleNotFoundError as error:
        from graphscale.core.requirements import missing_package

        raise missing_package(error, f"graphscale.{name}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
