"""What a rule records becomes part of the analysis: mappings, ties, weights, still inputs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.infer_shapes import infer_shapes
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    DimensionFactor,
    fixed,
    following,
    single_size,
    target_size,
)
from graphscale.passes.spatial.rules.window import Window
from tests.passes.small_graphs import graph


@dataclass
class Small:
    """An analyzer of `y = nodes(x)`, with the graph's nodes and its values by name."""

    analyzer: Analyzer
    nodes: list[ir.Node]
    values: dict[str, ir.Value]


def small(nodes: str, inputs: str = "float[1,3,32,32] x", outputs: str = "y", **weights) -> Small:
    model = ir.from_proto(graph(nodes, inputs, outputs, **weights))
    shapes = {each.name: [int(size) for size in each.shape] for each in model.graph.inputs}
    values = {each.name: each for each in model.graph.inputs} | dict(model.graph.initializers)
    values |= {each.name: each for node in model.graph for each in node.outputs}
    return Small(Analyzer(model, infer_shapes(model, shapes)), list(model.graph), values)


def test_only_an_inputs_heights_and_widths_move() -> None:
    made = small("y = Relu (x)", "float[2,3,32,1] x")
    made.analyzer.feed(made.values["x"], range(2, 4))
    batch, channels, height, width = made.analyzer.of(made.values["x"])
    assert (batch, channels, width) == (fixed(2), fixed(3), fixed(1))  # one pixel stays one
    assert (single_size(height).axis, single_size(height).target) == (0, 32)


def test_keep_gives_the_outputs_the_inputs_dimensions() -> None:
    made = small("y = Relu (x)")
    made.analyzer.feed(made.values["x"], range(2, 4))
    made.analyzer.keep(made.nodes[0])
    assert made.analyzer.of(made.values["y"]) is made.analyzer.of(made.values["x"])


def test_keep_fixes_what_has_another_size() -> None:
    made = small("y = ReduceMax <keepdims=1> (x, a)", a=[2])
    made.analyzer.feed(made.values["x"], range(2, 4))
    made.analyzer.keep(made.nodes[0])
    source = made.analyzer.of(made.values["x"])
    assert made.analyzer.of(made.values["y"]) == (source[0], source[1], fixed(1), source[3])


def test_a_mapping_leads_from_size_to_size() -> None:
    made = small("y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)")
    made.analyzer.feed(made.values["x"], range(2, 4))
    (pool,), window = made.nodes, Window(2, 2, 1, 0, 0)
    source = made.analyzer.of(made.values["x"])
    height = made.analyzer.resize(pool, 2, source[2], 16, window)
    made.analyzer.dims[made.values["y"]] = (source[0], source[1], height, fixed(16))
    found = made.analyzer.finish()
    (mapping,) = found.mappings[pool]
    assert (mapping.dimension, mapping.target) == (2, window)
    assert mapping.source is single_size(source[2])
    assert mapping.result is single_size(height)
    assert found.producers[mapping.result] == found.consumers[mapping.source] == (mapping,)


def test_a_dimension_that_does_not_move_is_noted_with_its_parameters() -> None:
    made = small("y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)")
    (pool,), window = made.nodes, Window(2, 2, 1, 0, 0)
    assert made.analyzer.resize(pool, 2, fixed(32), 16, window) == fixed(16)
    found = made.analyzer.finish()
    assert found.mappings == {}
    assert found.unmoved == {pool: {2: window}}


def test_a_window_over_flattened_maps_is_refused_by_the_nodes_name() -> None:
    made = small("y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)")
    made.analyzer.feed(made.values["x"], range(2, 4))
    *_, height, width = made.analyzer.of(made.values["x"])
    flat = (*height, *width)
    assert target_size(flat) == 1024
    with pytest.raises(GraphScaleError, match=r"'maxpool_0' \(MaxPool\) slides over flattened"):
        made.analyzer.resize(made.nodes[0], 2, flat, 512, Window(2, 2, 1, 0, 0))
    one = Window(1, 1, 1, 0, 0)
    assert made.analyzer.resize(made.nodes[0], 2, flat, 1024, one) is flat  # pixel for pixel


def test_ties_are_resolved_in_the_result() -> None:
    """The sizes of a and b are one; the analysis holds their root, in sums of dimensions, too."""
    made = small("y = Add (a, b)", "float[1,3,32,32] a, float[1,3,32,32] b")
    for name in "ab":
        made.analyzer.feed(made.values[name], range(2, 4))
    one, other = (made.analyzer.of(made.values[name])[2] for name in "ab")
    single_size(one).tie(single_size(other))
    both = (DimensionFactor(64, None, (one, other)),)
    made.analyzer.dims[made.values["y"]] = (fixed(1), fixed(3), both, one)
    found = made.analyzer.finish()
    root = found.of(made.values["a"])[2][0].spatial_size
    assert root is found.of(made.values["b"])[2][0].spatial_size
    parts = found.of(made.values["y"])[2][0].parts
    assert [part[0].spatial_size for part in parts] == [root, root]


def test_a_table_stands_on_the_positions_of_the_map() -> None:
    """A bias per column: its one dimension is the map's width; a bias per channel is no table."""
    made = small("s = Add (x, places) y = Add (s, bias)", places=(32,), bias=(3, 1, 1))
    made.analyzer.feed(made.values["x"], range(2, 4))
    dims = made.analyzer.of(made.values["x"])
    for node, name in zip(made.nodes, ("places", "bias")):
        made.analyzer.add_table(node, made.values[name], dims)
    (table,) = made.analyzer.finish().weights
    assert (table.value, table.summed, table.node) == (made.values["places"], False, made.nodes[0])
    assert table.dims == (dims[3],)


def test_an_input_that_no_convolution_reads_is_no_image() -> None:
    made = small(
        "y = Conv <pads=[1,1,1,1]> (x, w) z = Relu (h)",
        "float[1,3,32,32] x, float[1,2,5] h",
        "y, z",
        w=(4, 3, 3, 3),
    )
    for name, spatial in (("x", range(2, 4)), ("h", range(2, 3))):
        made.analyzer.feed(made.values[name], spatial)
    made.analyzer.read_map(made.analyzer.of(made.values["x"]))
    assert made.analyzer.apart_from_maps() == {made.values["h"]}
    assert made.analyzer.source_count() == 2
    still = Analyzer(made.analyzer.model, made.analyzer.inferred, frozenset([made.values["h"]]))
    still.feed(made.values["h"], range(2, 3))
    assert still.of(made.values["h"]) == (fixed(1), fixed(2), fixed(5))


def test_a_mapping_connects_an_image_with_the_map_that_is_read() -> None:
    made = small("p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x) y = Relu (p)")
    made.analyzer.feed(made.values["x"], range(2, 4))
    height = made.analyzer.resize(
        made.nodes[0], 2, made.analyzer.of(made.values["x"])[2], 16, Window(2, 2, 1, 0, 0)
    )
    assert made.analyzer.apart_from_maps() == {made.values["x"]}
    made.analyzer.read_map((height,))
    assert made.analyzer.apart_from_maps() == frozenset()


def test_a_spread_map_follows_its_reader() -> None:
    """Expand of one pixel: its size has no source, but a reader can tie it to a map's."""
    made = small("y = Expand (x, s)", "float[1,3,1,1] x", s=[1, 3, 8, 8])
    window = Window(1, 1, 1, 0, 0)
    height = made.analyzer.spread(made.nodes[0], 2, 0, 8, window)
    assert height == following(single_size(height))
    found = made.analyzer.finish()
    (mapping,) = found.mappings[made.nodes[0]]
    assert (mapping.source, mapping.result.target) == (None, 8)


def test_the_error_names_the_node_and_ends_in_what_to_do() -> None:
    error = unfollowed(ir.node("Det", [], name="middle"), "multiplies by a vector")
    assert str(error) == (
        "node 'middle' (Det) multiplies by a vector, which graphscale cannot rescale; cut the "
        "model before it or replace the node; or leave images their size (--input-size 224:224 for "
        "images of 224), so that only kernels become smaller"
    )
