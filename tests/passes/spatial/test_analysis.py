"""What an analysis tells of a graph: dimensions, constants, divisors."""

from __future__ import annotations

import numpy as np

from graphscale.passes.spatial.dimensions import fixed
from tests.passes.small_graphs import analyzed, graph, node, value


def test_dimensions_of_weights_are_fixed() -> None:
    analysis = analyzed(graph("y = Conv <pads=[1,1,1,1]> (x, w)", w=(4, 3, 3, 3)))
    assert analysis.of(value(analysis, "w")) == (fixed(4), fixed(3), fixed(3), fixed(3))
    assert analysis.shape(value(analysis, "y")) == (1, 4, 32, 32)


def test_a_constant_is_an_attribute_or_an_input() -> None:
    """Slice's `starts` were an attribute before opset 10; a shape is a constant, too."""
    old = analyzed(graph("y = Slice <starts=[2], ends=[30], axes=[2]> (x)", opset=9))
    assert old.constant(node(old, "Slice"), 1, "starts") == [2]
    nodes = "y = Slice (x, starts, ends, axes)"
    ints = {"starts": np.array([2]), "ends": np.array([30]), "axes": np.array([2])}
    new = analyzed(graph(nodes, **ints))
    assert new.constant(node(new, "Slice"), 1, "starts") == [2]
    assert new.constant(node(new, "Slice"), 4, "steps") is None  # an input that is left out


def test_what_depends_on_the_data_is_no_constant() -> None:
    analysis = analyzed(graph("y = Clip (x, low)", "float[1,3,32,32] x, float low"))
    assert analysis.constant(node(analysis, "Clip"), 1, "min") is None


def test_a_size_is_a_multiple_of_all_its_readers_blocks() -> None:
    """Cut into blocks of 2 and into blocks of 3: the size must be a multiple of 6."""
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        a = SpaceToDepth <blocksize=2> (c)
        b = SpaceToDepth <blocksize=3> (c)
    """
    analysis = analyzed(
        graph(
            nodes, "float[1,3,36,36] x", "float[1,12,18,18] a, float[1,27,12,12] b", w=(3, 3, 3, 3)
        )
    )
    height = analysis.of(value(analysis, "c"))[2][0].spatial_size
    assert analysis.divisor(height) == 6
    image = analysis.of(value(analysis, "x"))[2][0].spatial_size
    assert analysis.divisor(image) == 1
