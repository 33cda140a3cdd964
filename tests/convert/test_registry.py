"""The registry of translations: graphscale's own operators, and a user's."""

import numpy as np
import pytest
from onnx import helper

import graphscale
from graphscale.convert.operators import TRANSLATIONS, translates
from graphscale.layers import library
from graphscale.layers.operator import OPERATORS

from .compare import build, random, run_torch

DESCRIBED = {entry["name"]: entry["inputs"] for entry in library.describe()}


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_each_operator_of_the_library_says_which_inputs_are_trained(name):
    """An operator without the flag would be loaded with constants in place of its weights."""
    flags = [value.get("trainable") for value in DESCRIBED[name]]
    assert all(isinstance(flag, bool) for flag in flags), f"{name}: no 'trainable' in {flags}"
    if name in OPERATORS:
        weights = TRANSLATIONS["graphscale", name].weights
        assert list(weights) == [index for index, flag in enumerate(flags) if flag]


def test_trained_inputs_are_those_of_fbcunn():
    """The inputs are written out here, to check the library's description."""
    expected = {
        "FFTConv": (1, 2),
        "LocallyConnected": (1,),
        "TemporalConv": (1, 2),
        "LookupTable": (0,),
        "WeightedLookupTable": (0,),
        "HierarchicalSoftmaxLoss": (2, 3, 4, 5),
        "HierarchicalSoftmaxLogProb": (1, 2, 3, 4),
        "HierarchicalSoftmaxTopK": (1, 2, 3, 4),
    }
    for name in OPERATORS:
        assert tuple(TRANSLATIONS["graphscale", name].weights) == expected.get(name, ()), name


def test_registered_operators_of_other_domains(monkeypatch):
    monkeypatch.setitem(TRANSLATIONS, ("mine", "Scale"), None)
    translates("Scale", domain="mine", weights=(1,))(lambda node, x, w: x * w)
    node = helper.make_node("Scale", ["x", "w"], ["y"], domain="mine")
    model = build([node], {"w": np.float32([3])})
    model.opset_import.append(helper.make_opsetid("mine", 1))
    x = random(2, 4, 8, 8)
    np.testing.assert_allclose(run_torch(graphscale.load(model), x)[0], 3 * x)
