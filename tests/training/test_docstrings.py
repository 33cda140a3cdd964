"""The examples in the docstrings of graphscale.training run and print what they say."""

import doctest
import importlib

import pytest

FILES = ("grow_in_place", "image_size", "learning_rate", "schedule", "stages")


@pytest.mark.parametrize("name", FILES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"graphscale.training.{name}"))
    assert found.attempted
    assert not found.failed
