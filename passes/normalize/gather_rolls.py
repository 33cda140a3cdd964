"""Turn each roll, which exporters write as two Slices and a Concat, into one Gather.

torch.roll moves the pixels of a map around its border, before Swin cuts the map into windows say. A
Gather with constant indices does the same, and shrinking follows that. In go a model and the shapes
of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.infer_shapes import InferredShapes, infer_shapes
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult


class GatherRolls(ir.passes.InPlacePass):
    """Replace the rolls; the result names the nodes that joined their two parts.

    Args:
        input_shapes: The shape of each input that a caller feeds.

    Raises:
        GraphScaleError: as `infer_shapes`, of a model that joins two Slices of one tensor.
    """

    def __init__(self, input_shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._input_shapes = input_shapes

    def call(self, model: ir.Model) -> RewriteResult:
        """Replace in place."""
        candidates = [node for node in model.graph if _joins_slices(node)]
        inferred = infer_shapes(model, self._input_shapes) if candidates else None
        orders = {node: _order(node, inferred) for node in candidates}
        rolls = {node: order for node, order in orders.items() if order is not None}
        for concat, order in rolls.items():
            slices = [value.producer() for value in concat.inputs]
            index = add_initializer(model, f"{concat.outputs[0].name}.order", order)
            gather = ir.node(
                "Gather",
                [slices[0].inputs[0], index],
                {"axis": concat.attributes.get_int("axis")},
                name=concat.name,
            )
            gather.metadata_props.update(concat.metadata_props)
            replace_node(concat, [gather], gather.outputs)
            for each in slices:
                if not each.outputs[0].uses() and not each.outputs[0].is_graph_output():
                    model.graph.remove(each, safe=True)
        return RewriteResult.of(model, [node.name for node in rolls])


def _joins_slices(node: ir.Node) -> bool:
    """Whether a Concat joins two Slices of one tensor."""
    slices = [value.producer() for value in node.inputs if value is not None]
    return (
        node.op_type == "Concat"
        and len(slices) == 2
        and all(each is not None and each.op_type == "Slice" for each in slices)
        and slices[0].inputs[0] is slices[1].inputs[0]
    )


def _order(concat: ir.Node, inferred: InferredShapes) -> np.ndarray | None:
    """The places that a roll takes its pixels from; None for any other pair of Slices."""
    axis = concat.attributes.get_int("axis")
    slices = [value.producer() for value in concat.inputs]
    parts = [_picked(each, axis, inferred) for each in slices]
    if any(part is None for part in parts):
        return None
    order = np.concatenate(parts)
    size = inferred.shapes[slices[0].inputs[0]][axis]
    if order.size != size or not size or order[0] == 0:
        return None
    return order if np.array_equal(order, (np.arange(size) + order[0]) % size) else None


def _picked(node: ir.Node, axis: int, inferred: InferredShapes) -> np.ndarray | None:
    """The places that a Slice picks along `axis`; None if it cuts along another one, too."""
    shape = inferred.shapes.get(node.inputs[0])
    numbers = [
        inferred.constants[value].reshape(-1).tolist() if value in inferred.constants else None
        for value in node.inputs[1:]
    ]
    if shape is None or len(numbers) < 3 or None in numbers:
        return None
    starts, ends, axes = numbers[:3]
    steps = numbers[3] if len(numbers) > 3 else [1]
    if [each % len(shape) for each in axes] != [axis % len(shape)]:
        return None
    return np.arange(shape[axis])[starts[0] : ends[0] : steps[0]]
