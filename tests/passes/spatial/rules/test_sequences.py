"""The sequence operators of torch's dynamo exporter."""

from __future__ import annotations

import numpy as np
import pytest

import graphscale
from tests.passes.small_graphs import analyzed, graph, run, value

NODES = """
    c = Conv <pads=[1,1,1,1]> (x, w)
    parts = SplitToSequence <axis=1> (c, two)
    a = SequenceAt (parts, zero)
    b = SequenceAt (parts, one)
    both = SequenceConstruct (b, a)
    y = ConcatFromSequence <axis=1> (both)
"""
NUMBERS = {"two": np.array(2), "zero": np.array(0), "one": np.array(1)}


def test_halves_of_the_channels() -> None:
    target = graph(NODES, w=(4, 3, 3, 3), **NUMBERS)
    analysis = analyzed(target)
    assert analysis.of(value(analysis, "b"))[2:] == analysis.of(value(analysis, "c"))[2:]
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert run(pretrain)["y"].shape[:2] == (1, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SplitToSequence <axis=1>", "SplitToSequence <axis=2>", "splits a height or width"),
        ("Sequence <axis=1> (both)", "Sequence <axis=3> (both)", "joins a sequence of maps along"),
    ],
)
def test_what_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(graphscale.GraphScaleError, match=message):
        analyzed(graph(NODES.replace(old, new), w=(4, 3, 3, 3), **NUMBERS))
