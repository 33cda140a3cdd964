"""One file per operator family: what its operators mean for heights and widths.

Every file in this folder is imported by `load` and registers its rules; a new file needs no other
change.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def load() -> None:
    """Import every file of this folder, so that its rules are registered."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
