"""timm without torchvision, which has no build beside a CPU build of torch.

timm imports torchvision for its data transforms, which these tests do not use: every name that it
asks for is a class that nothing may call. Where torchvision is installed, nothing is put in its
place.
"""

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

NAMES = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.datasets",
    "torchvision.datasets.folder",
    "torchvision.ops",
    "torchvision.ops.misc",
)


class _Names(type):
    """Classes whose attributes are made when they are asked for, as an enumeration's members."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _Names(name, (), {})
        setattr(cls, name, value)
        return value


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _Names(name, (), {})
        setattr(self, name, value)
        return value


def install() -> None:
    """Let `import timm` find a torchvision."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    for name in NAMES:
        module = _Module(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
