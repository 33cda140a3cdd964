"""Tests marked slow run on demand only: with `-m slow`."""

import os

import pytest

# Commands that tests start import the package as installed, not a folder of its name nearby.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
