"""The examples in the docstrings of graphscale.layers run and print what they say."""

import doctest
import importlib

import pytest
import torch

FILES = (
    "class_clusters",
    "cross_map_normalization",
    "feature_pooling",
    "fft_conv",
    "hierarchical_softmax",
    "k_max_pool",
    "locally_connected",
    "lookup_table",
    "matrix_conv",
    "one_bit",
    "sparse_nll",
    "temporal_conv",
    "windows",
)


@pytest.mark.parametrize("name", FILES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"graphscale.layers.{name}")
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted
    assert not found.failed
