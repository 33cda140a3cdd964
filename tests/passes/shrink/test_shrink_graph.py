"""The graph is rewritten: declared shapes and constants; an overlooked constant is an error."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.passes.shrink.shrink_graph import ShrinkGraph, check_shapes
from tests.passes.small_graphs import analyzed, graph, run, solved, value

NODES = """
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)
    c = Conv <pads=[1,1,1,1]> (p, w)
    f = Reshape (c, shape)
    y = MatMul (f, v)
"""


def test_shapes_and_constants_follow() -> None:
    model = graph(NODES, w=(4, 3, 1, 1), shape=np.array([1, 1296]), v=(1296, 5))
    analysis = analyzed(model)
    geometry = solved(analysis, 20)
    result = ShrinkGraph(analysis, geometry)(analysis.model)
    assert result.modified
    assert result.names == ["shape"]
    side = geometry.shape(analysis.of(value(analysis, "c")))[2]
    assert value(analysis, "shape").const_value.numpy().tolist() == [1, 4 * side * side]
    assert list(value(analysis, "x").shape) == [1, 3, 20, 20]
    assert list(value(analysis, "y").shape) == [1, 5]


def test_a_declared_shape_of_a_wrong_rank_is_dropped() -> None:
    analysis = analyzed(graph("c = Conv <pads=[1,1,1,1]> (x, w)\ny = Relu (c)", w=(4, 3, 3, 3)))
    value(analysis, "c").shape = ir.Shape([1, 4])
    ShrinkGraph(analysis, solved(analysis, 20))(analysis.model)
    assert value(analysis, "c").shape is None
    assert list(value(analysis, "y").shape) == [1, 4, 20, 20]


def test_a_graph_in_which_nothing_moves_stays() -> None:
    nodes = "y = Conv <pads=[1,1,1,1]> (x, w)"
    analysis = analyzed(graph(nodes, w=(4, 3, 1, 1)))
    assert not ShrinkGraph(analysis, solved(analysis, 32))(analysis.model).modified


def test_an_overlooked_constant_is_named() -> None:
    """The graph is not rewritten, so that the reshape still asks for the target's sizes."""
    model = graph(NODES, w=(4, 3, 1, 1), shape=np.array([1, 1296]), v=(1296, 5))
    analysis = analyzed(model)
    with pytest.raises(graphscale.GraphScaleError, match=r"node '\w+'"):
        check_shapes(analysis, solved(analysis, 20), {"x": [1, 3, 20, 20]})


def test_positions_computed_from_shapes_follow() -> None:
    """Numbers 0, 1, 2 ... for the positions of a map, made from its shape in the graph."""
    nodes = """
        c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        f = Reshape (c, flat)
        s = Shape <start=2> (f)
        n = Squeeze (s)
        r = Range (zero, n, one)
        p = Cast <to=1> (r)
        u = Unsqueeze (p, axes)
        y = Add (f, u)
    """
    numbers = {"flat": [0, 0, -1], "zero": 0, "one": 1, "axes": [0, 1]}
    weights = {name: np.asarray(value) for name, value in numbers.items()}
    target = graph(nodes, outputs="y, f", w=(4, 3, 3, 3), **weights)
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    found = run(pretrain)
    expected = np.broadcast_to(np.arange(100), (1, 4, 100))
    np.testing.assert_allclose(found["y"] - found["f"], expected, atol=1e-4)
