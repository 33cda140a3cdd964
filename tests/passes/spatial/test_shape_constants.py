"""Wanted numbers are carried back to the constants behind them."""

from __future__ import annotations

import numpy as np
import pytest

from graphscale.passes.spatial.shape_constants import ShapeConstants
from tests.passes.small_graphs import analyzed, graph, node

CONV = "c = Conv <pads=[1,1,1,1]> (x, w)"


def demanded(nodes: str, wanted: list[int], freeze: bool = False, **weights: object):
    """The analysis, and the names of the constants that changed, after a Reshape's demand."""
    analysis = analyzed(graph(CONV + nodes, w=(4, 3, 3, 3), **weights))
    constants = ShapeConstants(analysis.model, analysis.inferred)
    reshape = node(analysis, "Reshape")
    constants.demand(reshape, 1, np.asarray(wanted), freeze)
    return reshape, constants.changed


def test_an_initializer() -> None:
    reshape, changed = demanded("y = Reshape (c, s)", [0, 1600], s=np.array([0, 4096]))
    assert changed == ["s"]
    assert reshape.inputs[1].const_value.numpy().tolist() == [0, 1600]


def test_what_holds_already_stays() -> None:
    _, changed = demanded("y = Reshape (c, s)", [0, -1], s=np.array([0, -1]))
    assert changed == []


@pytest.mark.parametrize("attribute", ["value = int64[2] {0, 4096}", "value_ints = [0, 4096]"])
def test_a_constant_node(attribute: str) -> None:
    nodes = f"s = Constant <{attribute}> () y = Reshape (c, s)"
    reshape, changed = demanded(nodes, [0, 1600])
    assert changed == ["s"]
    (held,) = reshape.inputs[1].producer().attributes.values()
    numbers = held.value if attribute.startswith("value_") else held.value.numpy().tolist()
    assert list(numbers) == [0, 1600]


def test_through_a_concat_to_the_part_that_changes() -> None:
    nodes = "s = Concat <axis=0> (a, b) y = Reshape (c, s)"
    _, changed = demanded(nodes, [0, 1600], a=np.array([0]), b=np.array([4096]))
    assert changed == ["b"]


def test_a_second_reader_keeps_its_numbers() -> None:
    """Two readers want different numbers of one constant: the second gets a constant of its own."""
    nodes = "y = Reshape (c, s)"
    analysis = analyzed(graph(CONV + nodes, w=(4, 3, 3, 3), s=np.array([0, 4096])))
    constants = ShapeConstants(analysis.model, analysis.inferred)
    reshape = node(analysis, "Reshape")
    constants.demand(reshape, 1, np.array([0, 1600]))
    constants.demand(reshape, 1, np.array([0, 900]))
    assert constants.changed == ["s", "s.pretrain"]
    assert reshape.inputs[1].name == "s.pretrain"


@pytest.mark.parametrize("freeze", [False, True])
def test_what_follows_from_shapes(freeze: bool) -> None:
    """What a Shape node computes is left alone; with `freeze` it is replaced by a constant."""
    nodes = "s = Shape (c) y = Reshape (c, s)"
    reshape, changed = demanded(nodes, [1, 4, 20, 20], freeze)
    assert (reshape.inputs[1].producer() is None) == freeze
    assert changed == (["s.pretrain"] if freeze else [])
