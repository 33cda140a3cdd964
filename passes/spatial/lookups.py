"""Follow heights and widths through a table of relative positions.

In attention, a value for each pair of pixels is added to the scores. Where it is looked up in a
trained table by constant indices, both must be those of the pre-train network's map. Instead of a
trained table there may be one that layers compute of the logarithms of all offsets, as in the
second Swin. In go the value that is added and the dimensions of the scores; the analysis gets a
`Lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphscale.core.log_offsets import log_offsets_kind
from graphscale.core.lookups import KINDS, TOKEN_VALUES, lookup_indices, table_sizes
from graphscale.passes.graph.weight_source import dims_at_source, tensor_of, weight_source
from graphscale.passes.spatial.dimensions import (
    DimensionFactor,
    Dims,
    fixed,
    following,
    moves,
    offsets,
    regroup,
    section,
    target_size,
    total,
)

if TYPE_CHECKING:
    from graphscale.passes.spatial.analysis import GraphFacts

_REGROUPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_POINTWISE = ("Relu", "Gelu", "Sigmoid", "Tanh")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_REARRANGING = (*_REGROUPING, "Transpose", "Identity", "Cast")


@dataclass(frozen=True)
class Lookup:
    """A table of relative positions and its indices.

    Attributes:
        node: The operator that adds what is looked up.
        table: The initializer, or the output of the Constant node, that holds the table.
        table_dims: Its dimensions.
        table_kind: 'table' of a trained one, or how its logarithms follow from the sizes
            (`core.log_offsets`).
        index: The value that holds the indices.
        dims: The indices' dimensions.
        kind: How they follow from the sizes, of `KINDS`.
    """

    node: ir.Node
    table: ir.Value
    table_dims: Dims
    table_kind: str
    index: ir.Value
    dims: Dims
    kind: str


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
    rank, places = len(facts.shape(index)), tuple(map(fixed, facts.shape(read)))
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
    pixels = _behind_tokens(factors)
    token = pixels is not None
    sizes = [factor.spatial_size for factor in pixels or factors]
    if len(sizes) != 4 or None in sizes:
        return None
    values = facts.shape(read)[axis] - TOKEN_VALUES * token
    kind = _kind(tensor_of(held).numpy(), pixels or factors, values, token)
    if kind is None:
        return None
    rows = sum(map(following if kind == "distances" else offsets, sizes[2:]), ())
    rows = total(rows, fixed(TOKEN_VALUES)) if token else rows
    places = (*places[:axis], rows, *places[axis + 1 :])
    found = _table(read, places, known, facts)
    return None if found is None else (Lookup(node, *found, held, inner, kind), known)


def find_factors(
    value: ir.Value, dims: Dims, facts: GraphFacts
) -> tuple[ir.Value, Dims, dict[ir.Value, Dims]] | None:
    """The trained factors of products with a dimension for each offset.

    Args:
        value: What is made of the products by rearranging them.
        dims: Its dimensions, of which one is that of the offsets.
        facts: The analysis.

    Returns:
        The value that a MatMul multiplies by, its dimensions, and the dimensions of the values on
        the way; None where there is no such product.
    """
    known: dict[ir.Value, Dims] = {}
    end, found = _back(value, dims, known, facts)
    node = end.producer()
    if found is None or node is None or node.op_type != "MatMul" or node.domain != "":
        return None
    factors = node.inputs[1]
    alone = len(found[-1]) == 1 and found[-1][0].offsets_of is not None
    if not alone or weight_source(factors) is None or len(facts.shape(factors)) != 2:
        return None
    known[end] = found
    return factors, (fixed(facts.shape(factors)[0]), found[-1]), known


def _table(
    read: ir.Value, places: Dims, known: dict[ir.Value, Dims], facts: GraphFacts
) -> tuple[ir.Value, Dims, str] | None:
    """The table that is looked up in, its dimensions, and its kind; None for any other value.

    `places` are the dimensions of the value that is `read`.
    """
    before = set(known)
    if weight_source(read) is None:
        read, places = _back(read, places, known, facts)
    table = weight_source(read)
    if table is None or places is None:
        return None
    dims = dims_at_source(read, places, facts.inferred.constants)
    kind: str | None = "table"
    if any(_computes(value.producer(), facts) for value in known.keys() - before):
        kind = log_offsets_kind(tensor_of(table).numpy(), facts.shape(table))
    return None if kind is None else (table, dims, kind)


def _back(
    value: ir.Value, dims: Dims | None, known: dict[ir.Value, Dims], facts: GraphFacts
) -> tuple[ir.Value, Dims | None]:
    """Carry dimensions back through nodes that rearrange, or that compute each place by itself.

    Returns the value where they end: the output of a node of another kind, or an initializer.
    `known` gets the dimensions of every value on the way.
    """
    while True:
        node = value.producer()
        if node is not None and dims is not None and _hands_on(node, facts):
            known[value] = dims
            value = node.inputs[0]
            continue
        if node is not None and dims is not None and _computes(node, facts):
            if node.op_type == "MatMul" and moves(dims[-1]):
                return value, dims
            known[value] = dims
            value = node.inputs[0]
            if node.op_type == "MatMul":
                dims = (*dims[:-1], fixed(facts.shape(value)[-1]))
            continue
        if node is not None and dims is not None and node.op_type == "Pad":
            known[value] = dims
            dims = _without_tokens(node, dims, facts)
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


def _computes(node: ir.Node, facts: GraphFacts) -> bool:
    """Whether a node computes each place of its output from that of its first input.

    It may be a product along the last dimension.
    """
    if node.op_type in _POINTWISE:
        return True
    if (
        len(node.inputs) != 2
        or facts.shape(node.inputs[0])[:-1] != facts.shape(node.outputs[0])[:-1]
    ):
        return False
    weight, rank = weight_source(node.inputs[1]), len(facts.shape(node.inputs[1]))
    if node.op_type == "MatMul":
        return weight is not None and rank == 2
    return node.op_type in _ARITHMETIC and weight is not None and rank <= 1


def _without_tokens(node: ir.Node, dims: Dims, facts: GraphFacts) -> Dims | None:
    """The dimensions of what a Pad puts places of tokens before; None for another Pad."""
    shape = facts.shape(node.inputs[0])
    pads = facts.constant(node, 1, "pads")
    if pads is None or len(pads) != 2 * len(dims) or any(pads[len(dims) :]) or min(pads) < 0:
        return None
    found = []
    for dim, before, size in zip(dims, pads, shape):
        part = section(dim, before, before + size) if before else dim
        if part is None:
            return None
        found.append(part)
    return tuple(found)


def _picks_one(node: ir.Node, facts: GraphFacts) -> bool:
    """Whether a Gather picks one of what was looked up, such as a head's values."""
    if node.op_type != "Gather" or weight_source(node.inputs[0]) is not None:
        return False
    return facts.shape(node.inputs[1]) == ()


def _behind_tokens(factors: list[DimensionFactor]) -> list[DimensionFactor] | None:
    """The factors of the pixels where both factors are a token and pixels; else None."""
    parts = [factor.parts for factor in factors]
    if len(parts) != 2 or any(len(each) != 2 or each[0] for each in parts):
        return None
    return [*parts[0][1], *parts[1][1]]


def _kind(
    index: np.ndarray, factors: list[DimensionFactor], values: int, token: bool
) -> str | None:
    """By which rule indices into a table of so many values of pixels follow from the sizes."""
    sizes = [factor.size for factor in factors]
    for kind in KINDS:
        if (kind == "token offsets") != token:
            continue
        height, width = table_sizes(kind, sizes[2:])
        fits = kind == "distances" or sizes[:2] == sizes[2:]
        if not fits or height * width != values:
            continue
        if np.array_equal(index.reshape(-1), lookup_indices(kind, sizes).reshape(-1)):
            return kind
    return None
