"""Tracing of operators that keep, combine or rearrange dimensions."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.dimensions import (
    Atom,
    Dim,
    Extent,
    fixed,
    moves,
    regroup,
    target_size,
    tie_dims,
)
from graphscale.passes.spatial.links import Link, Resampled
from graphscale.passes.spatial.traced import Traced, match_table, unfollowed


def same_shape(node: ir.Node, traced: Traced) -> None:
    source = node.inputs[0] if node.inputs else None
    for output in node.outputs:
        if not output.name or output not in traced.measured.shapes:
            continue
        shape = traced.shape(output)
        if source is not None and shape == traced.shape(source):
            traced.dims[output] = traced.of(source)
        elif any(moves(dim) for value in node.inputs if value for dim in traced.of(value)):
            if len(shape) > 1 and all(size > 1 for size in shape[2:]):
                raise unfollowed(node, "changes the shape of feature maps in an unknown way")
            traced.dims[output] = tuple(fixed(size) for size in shape)


def normalize_trailing(node: ir.Node, traced: Traced) -> None:
    """Normalisation whose scale and bias have the trailing dimensions of the input."""
    same_shape(node, traced)
    for value in node.inputs[1:]:
        if value is not None:
            match_table(node, traced, value, traced.of(node.inputs[0]))


def elementwise(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs[:1]
    shape = traced.shape(output)
    result: list[Dim] = []
    inputs = [value for value in node.inputs if value is not None]
    for position, size in enumerate(shape):
        dim: Dim | None = None
        for value in inputs:
            dims = traced.of(value)
            at = position - len(shape) + len(dims)
            if at < 0 or target_size(dims[at]) != size:
                continue
            if dim is None or (moves(dims[at]) and not moves(dim)):
                dim = dims[at]
        result.append(dim if dim is not None else fixed(size))
    for value in inputs:
        dims = traced.of(value)
        aligned = tuple(result[len(shape) - len(dims) :])
        if weight_source(value) is not None:
            match_table(node, traced, value, aligned)
            continue
        for mine, theirs in zip(dims, aligned, strict=True):
            if mine == theirs or not mine:
                continue
            known = value in traced.measured.constants  # follows from shapes by itself
            if not tie_dims(theirs, mine) and not known:
                raise unfollowed(node, "combines maps whose extents have different origins")
    traced.dims[output] = tuple(result)


def transpose(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
    traced.dims[node.outputs[0]] = tuple(dims[axis] for axis in order)


def reshape(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = regroup(traced.of(node.inputs[0]), traced.shape(output))
    if dims is None:
        if any(moves(dim) for dim in traced.of(node.inputs[0])):
            raise unfollowed(node, "cuts a height or width into pieces")
        dims = tuple(fixed(size) for size in traced.shape(output))
    traced.dims[output] = dims


def expand(node: ir.Node, traced: Traced) -> None:
    """Expand and Tile: dimensions of one pixel are repeated."""
    (output,) = node.outputs
    dims = traced.of(node.inputs[0])
    shape = traced.shape(output)
    dims = (*(fixed(1) for _ in range(len(shape) - len(dims))), *dims)
    result = []
    for position, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if target_size(dim) == size:
            result.append(dim)
        elif moves(dim):
            raise unfollowed(node, "repeats a height or width")
        elif position >= 2 and len(shape) >= 3:
            # Spread over a map whose size is known only where it meets another.
            extent = Extent(position - 2, size)
            numbers = Resampled(size, 1, "asymmetric")
            traced.links.setdefault(node, []).append(
                Link(node, position - 2, position, None, extent, numbers)
            )
            result.append((Atom(size, extent),))
        else:
            result.append(fixed(size))
    traced.dims[output] = tuple(result)


def concat(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    shape = traced.shape(output)
    axis = node.attributes.get_int("axis", 1) % len(shape)
    inputs = [traced.of(value) for value in node.inputs]
    result = list(max(inputs, key=lambda dims: sum(moves(dim) for dim in dims)))
    for dims in inputs:
        for position, dim in enumerate(dims):
            if position != axis and not tie_dims(result[position], dim):
                raise unfollowed(node, "joins maps whose extents have different origins")
    parts = tuple(dims[axis] for dims in inputs)
    if any(moves(part) for part in parts):
        result[axis] = (Atom(shape[axis], parts=parts),)
    else:
        result[axis] = fixed(shape[axis])
    traced.dims[output] = tuple(result)


def split(node: ir.Node, traced: Traced) -> None:
    dims = list(traced.of(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if moves(dims[axis]):
        parts = dims[axis][0].parts if len(dims[axis]) == 1 else ()
        sizes = [traced.shape(output)[axis] for output in node.outputs]
        if [target_size(part) for part in parts] != sizes:
            raise unfollowed(node, "splits a height or width")
        pieces = list(parts)
    else:
        pieces = [fixed(traced.shape(output)[axis]) for output in node.outputs]
    for output, piece in zip(node.outputs, pieces, strict=True):
        traced.dims[output] = (*dims[:axis], piece, *dims[axis + 1 :])


def gather(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if moves(dims[axis]):
        raise unfollowed(node, "picks single rows or columns of a map")
    indices = tuple(fixed(size) for size in traced.shape(node.inputs[1]))
    traced.dims[node.outputs[0]] = (*dims[:axis], *indices, *dims[axis + 1 :])


def reduce(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs[:1]
    dims = traced.of(node.inputs[0])
    shape = traced.shape(output)
    if len(shape) == len(dims):
        result = [dim if target_size(dim) == size else () for dim, size in zip(dims, shape)]
    else:
        axes = traced.constant(node, 1, "axes") or [node.attributes.get_int("axis", 0)]
        axes = [axis % len(dims) for axis in axes]
        kept = [dim for position, dim in enumerate(dims) if position not in axes]
        result = kept if len(kept) == len(shape) else [fixed(size) for size in shape]
    for each in node.outputs:
        traced.dims[each] = tuple(result)


def pool_features(node: ir.Node, traced: Traced) -> None:
    """Windows of channels become one each."""
    dims = traced.of(node.inputs[0])
    for output in node.outputs:
        if output.name:
            traced.dims[output] = (dims[0], fixed(traced.shape(output)[1]), *dims[2:])


def locally_connected(node: ir.Node, traced: Traced) -> None:
    """Its weight has the image's positions among its dimensions."""
    if any(moves(dim) for dim in traced.of(node.inputs[0])):
        raise unfollowed(node, "has another kernel at every position of its feature maps")
    same_shape(node, traced)


def global_pool(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    traced.dims[node.outputs[0]] = (*dims[:2], *(() for _ in dims[2:]))
