"""Turn the shift that makes relative positions absolute ones into one GatherND.

Attention with a vector for each offset between two pixels (arXiv 1904.09925, 2101.11605) has, for
each of n pixels, 2n - 1 numbers, of which the one of offset j - i belongs to pixel j. Networks move
them to their places by padding each row, reading the rows as one line, padding and cutting it
again. A GatherND does the same, and shrinking follows that. The numbers of rows and of columns,
each repeated by an Expand for the other, are added by one Add, which repeats them itself. In go a
model and the shapes of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.lookups import offset_places
from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.evaluate_node import evaluate_node
from graphscale.passes.graph.infer_shapes import InferredShapes, infer_shapes
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult

_SHIFTING = ("Pad", "Reshape", "Flatten", "Slice")


class GatherOffsets(ir.passes.InPlacePass):
    """Replace the shifts; the result names the nodes that ended them.

    Args:
        input_shapes: The shape of each input that a caller feeds.

    Raises:
        GraphScaleError: as `infer_shapes`, of a model that pads twice with one Reshape between.
    """

    def __init__(self, input_shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._input_shapes = input_shapes

    def call(self, model: ir.Model) -> RewriteResult:
        """Replace in place."""
        chains = [_chain(node) for node in model.graph if node.op_type == "Pad"]
        chains = [chain for chain in chains if sum(node.op_type == "Pad" for node in chain) == 2]
        inferred = infer_shapes(model, self._input_shapes) if chains else None
        ends, moved = [], []
        for chain in chains:
            end = _shifted(model, chain, inferred)
            if end is None:
                continue
            ends.append(end.name)
            data = chain[0].inputs[0]
            places = offset_places(inferred.shapes[data][1])
            index = add_initializer(model, f"{end.outputs[0].name}.places", places)
            rows = ir.node("Transpose", [data], {"perm": [1, 2, 0]}, name=f"{end.name}.rows")
            gather = ir.node("GatherND", [rows.outputs[0], index], name=f"{end.name}.places")
            back = ir.node("Transpose", gather.outputs, {"perm": [2, 0, 1]}, name=end.name)
            for made in (rows, gather, back):
                made.metadata_props.update(end.metadata_props)
            replace_node(end, [rows, gather, back], back.outputs)
            moved.append(back.outputs[0])
            for node in reversed(chain[: chain.index(end)]):
                if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                    model.graph.remove(node, safe=True)
        _drop_expands(moved, inferred)
        return RewriteResult.of(model, ends)


def _chain(node: ir.Node) -> list[ir.Node]:
    """A Pad and the nodes behind it that shift, as long as each has a single reader."""
    found = [node]
    while len(uses := list(found[-1].outputs[0].uses())) == 1:
        if uses[0].node.op_type not in _SHIFTING or uses[0].idx != 0:
            break
        found.append(uses[0].node)
    return found


def _shifted(model: ir.Model, chain: list[ir.Node], inferred: InferredShapes) -> ir.Node | None:
    """The node whose output has the numbers of `chain`'s input at their places; None if none has.

    The nodes are computed with numbers that tell where they come from.
    """
    shape = inferred.shapes.get(chain[0].inputs[0], ())
    if len(shape) != 3 or shape[2] != 2 * shape[1] - 1 or shape[1] < 2:
        return None
    given = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape)
    rows, columns = np.moveaxis(offset_places(shape[1]), -1, 0)
    wanted = given[:, rows, columns]
    moved = given
    for node in chain:
        numbers = [None if v is None else inferred.constants.get(v) for v in node.inputs[1:]]
        if any(a is not None and b is None for a, b in zip(node.inputs[1:], numbers)):
            return None
        if node.op_type == "Pad" and len(numbers) > 1 and numbers[1] is not None:
            numbers[1] = np.zeros((), moved.dtype)  # the border is cut off again
        try:
            (moved,) = evaluate_node(model, node, [moved, *numbers])
        except GraphScaleError:
            return None
        if moved.shape == wanted.shape and np.array_equal(moved, wanted):
            return node
    return None


def _drop_expands(values: Sequence[ir.Value], inferred: InferredShapes | None) -> None:
    """Remove the Expands behind `values` whose outputs an Add of two such joins."""
    expanded: dict[ir.Node, list[tuple[ir.Node, list[ir.Node]]]] = {}
    for value in values:
        *path, last = _path(value)
        at = next((at for at, node in enumerate(path) if node.op_type == "Expand"), None)
        if at is None or last.op_type != "Add":
            continue
        if all(node.op_type == "Transpose" for node in path[at + 1 :]):
            expanded.setdefault(last, []).append((path[at], path[at + 1 :]))
    for add, operands in expanded.items():
        shapes = []
        for expand, transposes in operands:
            shape = inferred.shapes[expand.inputs[0]]
            for node in transposes:
                order = node.attributes.get_ints("perm", list(range(len(shape)))[::-1])
                shape = tuple(shape[axis] for axis in order)
            shapes.append(shape)
        if len(shapes) != 2 or len(shapes[0]) != len(shapes[1]):
            continue
        if tuple(map(max, *shapes)) != inferred.shapes[add.outputs[0]]:
            continue
        for expand, transposes in operands:
            for node in transposes:
                node.outputs[0].shape = None
            expand.outputs[0].replace_all_uses_with(expand.inputs[0])
            expand.graph.remove(expand, safe=True)


def _path(value: ir.Value) -> list[ir.Node]:
    """The producer of `value`, and the nodes behind it as long as each has a single reader.

    The last of them is the first one that does not only rearrange or repeat.
    """
    path = [value.producer()]
    while len(uses := list(path[-1].outputs[0].uses())) == 1:
        path.append(uses[0].node)
        if path[-1].op_type not in ("Reshape", "Unsqueeze", "Transpose", "Expand"):
            break
    return path
