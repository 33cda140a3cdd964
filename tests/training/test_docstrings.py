"""The examples in the docstrings of graphscale.training run and print what they say."""

import doctest
import importlib

import pytest

FILES = (
    "fused_sgd",
    "grow_in_place",
    "growth_lr",
    "growth_schedule",
    "growth_stages",
    "image_size",
)


@pytest.mark.parametrize("name", FILES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"graphscale.training.{name}"))
    assert found.attempted
    assert not found.failed
