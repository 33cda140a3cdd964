"""Follow heights and widths through a table of relative positions.

In attention, a value for each pair of pixels is added to the scores. Where it is looked up in a
trained table by constant indices, both must be those of the pre-train network's map. In go the
value that is added and the dimensions of the scores; the analysis gets a `Lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphscale.core.lookups import KINDS, lookup_indices, table_sizes
from graphscale.passes.graph.weight_source import dims_at_source, tensor_of, weight_source
from graphscale.passes.spatial.dimensions import (
    DimensionFactor,
    Dims,
    SpatialSize,
    fixed,
    moves,
    regroup,
    target_size,
)

if TYPE_CHECKING:
    from graphscale.passes.spatial.analysis import GraphFacts

_REGROUPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_REARRANGING = (*_REGROUPING, "Transpose", "Identity", "Cast")


@dataclass(frozen=True)
class Lookup:
    """A table of relative positions and its indices.

    Attributes:
        node: The operator that adds what is looked up.
        table: The initializer, or the output of the Constant node, that holds the table.
        axis: The table's axis along which values are looked up.
        index: The value that holds the indices.
        dims: The indices' dimensions.
        kind: How they follow from the sizes, of `KINDS`.
        sizes: Height and width of the first pixel's map and of the second one's.
    """

    node: ir.Node
    table: ir.Value
    axis: int
    index: ir.Value
    dims: Dims
    kind: str
    sizes: tuple[SpatialSize, ...]


def find_lookup(
    node: ir.Node, value: ir.Value, aligned: Dims, facts: GraphFacts
) -> tuple[Lookup, dict[ir.Value, Dims]] | None:
    """The lookup behind `value`, and the dimensions of the values on the way to it.

    Args:
        node: The operator that reads `value`.
        value: Any value.
        aligned: The dimensions of what it is added to, as many as it has.
        facts: The analysis.

    Returns:
        None where nothing that follows the input is looked up, or the order of the indices is none
        of the known ones.
    """
    dims = tuple(
        dim if size > 1 and target_size(dim) == size else fixed(size)
        for dim, size in zip(aligned, facts.shape(value), strict=True)
    )
    if not any(map(moves, dims)):
        return None
    known: dict[ir.Value, Dims] = {}
    looked_up, dims = _back(value, dims, known, facts)
    gather = looked_up.producer()
    if gather is None or gather.op_type not in ("Gather", "GatherND") or dims is None:
        return None
    read, index = gather.inputs
    table = weight_source(read)
    if table is None:
        return None
    rank, places = len(facts.shape(index)), list(range(len(facts.shape(read))))
    axis = 0
    if gather.op_type == "Gather":
        axis = gather.attributes.get_int("axis", 0) % len(places)
        inner = dims[axis : axis + rank]
    elif facts.shape(index)[-1:] == (1,) and not gather.attributes.get_int("batch_dims", 0):
        inner = (*dims[: rank - 1], ())
        rank -= 1
    else:
        return None
    if any(map(moves, (*dims[:axis], *dims[axis + rank :]))):
        return None
    known[gather.outputs[0]] = dims
    end, inner = _back(index, inner, known, facts)
    held = weight_source(end)
    if held is not end or inner is None:
        return None
    factors = [factor for dim in inner for factor in dim]
    sizes = [factor.spatial_size for factor in factors]
    if len(sizes) != 4 or None in sizes:
        return None
    kind = _kind(tensor_of(held).numpy(), factors, facts.shape(read)[axis])
    if kind is None:
        return None
    axis = dims_at_source(read, places, facts.inferred.constants).index(axis)
    return Lookup(node, table, axis, held, inner, kind, tuple(sizes)), known


def _back(
    value: ir.Value, dims: Dims | None, known: dict[ir.Value, Dims], facts: GraphFacts
) -> tuple[ir.Value, Dims | None]:
    """Carry dimensions back through nodes that rearrange; returns the value where they end.

    That is the output of a node of another kind, or an initializer. `known` gets the dimensions of
    every value on the way.
    """
    while True:
        node = value.producer()
        if node is not None and dims is not None and _hands_on(node, facts):
            known[value] = dims
            value = node.inputs[0]
            continue
        if node is not None and dims is not None and _picks_one(node, facts):
            axis = node.attributes.get_int("axis", 0) % len(facts.shape(node.inputs[0]))
            known[value] = dims
            value = node.inputs[0]
            dims = (*dims[:axis], fixed(facts.shape(value)[axis]), *dims[axis:])
            continue
        if node is None or node.op_type not in _REARRANGING or node.domain != "" or dims is None:
            return value, dims
        known[value] = dims
        source = node.inputs[0]
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
            dims = tuple(dims[list(order).index(axis)] for axis in range(len(order)))
        elif node.op_type in _REGROUPING:
            dims = regroup(dims, facts.shape(source))
        value = source


def _hands_on(node: ir.Node, facts: GraphFacts) -> bool:
    """Whether a node's output is its input: an Expand to the same shape, a Concat of one tensor."""
    if node.op_type == "Concat":
        return len(node.inputs) == 1
    return node.op_type == "Expand" and facts.shape(node.inputs[0]) == facts.shape(node.outputs[0])


def _picks_one(node: ir.Node, facts: GraphFacts) -> bool:
    """Whether a Gather picks one of what was looked up, such as a head's values."""
    if node.op_type != "Gather" or weight_source(node.inputs[0]) is not None:
        return False
    return facts.shape(node.inputs[1]) == ()


def _kind(index: np.ndarray, factors: list[DimensionFactor], values: int) -> str | None:
    """By which rule indices into a table of so many values follow from the sizes."""
    sizes = [factor.size for factor in factors]
    for kind in KINDS:
        height, width = table_sizes(kind, sizes[2:])
        fits = kind == "distances" or sizes[:2] == sizes[2:]
        if not fits or height * width != values:
            continue
        if np.array_equal(index.reshape(-1), lookup_indices(kind, sizes).reshape(-1)):
            return kind
    return None
