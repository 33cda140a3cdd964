"""Read a table of positions itself where nodes only cut it, resize it to its own size, and join it.

A vision transformer that takes images of any size resamples its table of positions in its forward:
the rows of class tokens are cut off, the others become a map, Resize fits it to the image, and all
are joined again. At the size that the table was made for, the result is the table. Read directly,
it can be resized like any other. In go a model and the shapes of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.evaluate_node import evaluate_node
from graphscale.passes.graph.infer_shapes import InferredShapes, infer_shapes
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import weight_source

# Operators that move numbers and change none.
_MOVING = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat")
# What a Resize that keeps its input's size calls the places of the pixels; each is its own.
_IN_PLACE = {
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners"),
}


class WholeTables(ir.passes.InPlacePass):
    """Let readers read the tables; the result names the tables.

    Args:
        input_shapes: The shape of each input that a caller feeds.

    Raises:
        GraphScaleError: as `infer_shapes`, of a model that resizes a weight.
    """

    def __init__(self, input_shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._input_shapes = input_shapes

    def call(self, model: ir.Model) -> RewriteResult:
        """Change in place."""
        resized = {node: _table(node) for node in model.graph if node.op_type == "Resize"}
        resized = {node: table for node, table in resized.items() if table is not None}
        if not resized:
            return RewriteResult.of(model, [])
        inferred = infer_shapes(model, self._input_shapes)
        # For each value that holds numbers of a table: the table, and the places of the numbers.
        places: dict[ir.Value, tuple[ir.Value, np.ndarray]] = {}
        for node, table in resized.items():
            if table not in places and _keeps_size(node, inferred):
                shape = inferred.shapes[table]
                places[table] = table, np.arange(np.prod(shape, dtype=int)).reshape(shape)
        for node in model.graph:
            _move(model, node, places, inferred)
        found = []
        for value, (table, order) in places.items():
            whole = (
                order.shape == inferred.shapes[table] and (np.diff(order.reshape(-1)) == 1).all()
            )
            if value is not table and whole and not value.is_graph_output():
                value.replace_all_uses_with(table)
                found.append(table.name)
        _remove_unread(model.graph, places)
        return RewriteResult.of(model, list(dict.fromkeys(found)))


def _table(node: ir.Node) -> ir.Value | None:
    """The weight that a node reads first, behind nodes that move its numbers."""
    value = node.inputs[0]
    while weight_source(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in _MOVING or producer.domain != "":
            return None
        value = producer.inputs[0]
    return weight_source(value)


def _keeps_size(node: ir.Node, inferred: InferredShapes) -> bool:
    """Whether a Resize gives its input as it is."""
    shapes = inferred.shapes
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    return mode in _IN_PLACE and shapes[node.inputs[0]] == shapes[node.outputs[0]]


def _move(
    model: ir.Model,
    node: ir.Node,
    places: dict[ir.Value, tuple[ir.Value, np.ndarray]],
    inferred: InferredShapes,
) -> None:
    """Note the places of a node's output in `places`, where it only moves numbers of one table."""
    data = [*node.inputs] if node.op_type == "Concat" else [*node.inputs[:1]]
    tables = {places[value][0] if value in places else None for value in data}
    if len(tables) != 1 or None in tables or node.domain != "":
        return
    if node.op_type == "Resize" and _keeps_size(node, inferred):
        places[node.outputs[0]] = places[data[0]]
        return
    numbers = node.inputs[len(data) :]
    if node.op_type not in _MOVING or any(each not in inferred.constants for each in numbers):
        return
    given = [places[value][1] for value in data] + [inferred.constants[each] for each in numbers]
    (order,) = evaluate_node(model, node, given)
    places[node.outputs[0]] = tables.pop(), order


def _remove_unread(graph: ir.Graph, values: Mapping[ir.Value, object]) -> None:
    """Remove the producers of those of `values` that nothing reads, and their numbers likewise."""
    for value in reversed(list(values)):
        node = value.producer()
        if node is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
            continue
        numbers = [each for each in node.inputs if each is not None and each.is_initializer()]
        graph.remove(node, safe=True)
        for each in numbers:
            if not each.uses() and not each.is_graph_output():
                graph.initializers.pop(each.name, None)
