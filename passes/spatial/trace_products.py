"""Tracing of matrix products: what is summed over, and which weights are interfaces."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.dimensions import Dim, Dims, moves, tie_dims
from graphscale.passes.spatial.traced import Traced, add_weight, unfollowed


def matmul(node: ir.Node, traced: Traced) -> None:
    first, second = node.inputs[:2]
    one, other = traced.of(first), traced.of(second)
    if len(one) < 2 or len(other) < 2:
        raise unfollowed(node, "multiplies by a vector")
    _contract(node, traced, (first, one, len(one) - 1), (second, other, len(other) - 2))
    batch = _broadcast(one[:-2], other[:-2])
    traced.dims[node.outputs[0]] = (*batch, one[-2], other[-1])


def gemm(node: ir.Node, traced: Traced) -> None:
    first, second = node.inputs[:2]
    one, other = traced.of(first), traced.of(second)
    row, column = (1, 0) if node.attributes.get_int("transA", 0) else (0, 1)
    inner, outer = (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
    _contract(node, traced, (first, one, column), (second, other, inner))
    traced.dims[node.outputs[0]] = (one[row], other[outer])


def _contract(node: ir.Node, traced: Traced, first, second) -> None:
    """Sum over a dimension of two tensors: they are tied, or one is an interface's weight."""
    (left, left_dims, i), (right, right_dims, j) = first, second
    if not moves(left_dims[i]) and not moves(right_dims[j]):
        return
    for weight, dims, position, dim in (
        (right, right_dims, j, left_dims[i]),
        (left, left_dims, i, right_dims[j]),
    ):
        if weight_source(weight) is not None:
            dims = (*dims[:position], dim, *dims[position + 1 :])
            add_weight(node, traced, weight, dims, summed=True)
            return
    if not tie_dims(left_dims[i], right_dims[j]):
        raise unfollowed(node, "sums over extents of different origins")


def _broadcast(first: Dims, second: Dims) -> Dims:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    shorter = (*(() for _ in range(len(longer) - len(shorter))), *shorter)
    for one, other in zip(longer, shorter):
        if one and other:
            tie_dims(one, other)
    return tuple(one or other for one, other in zip(longer, shorter))


def einsum(node: ir.Node, traced: Traced) -> None:
    equation = node.attributes["equation"].value.replace(" ", "")
    terms, _, result = equation.partition("->")
    if "..." in equation or not result:
        if any(moves(dim) for value in node.inputs for dim in traced.of(value)):
            raise unfollowed(node, f"has the equation {equation!r}")
        return
    letters: dict[str, Dim] = {}
    operands = list(zip(terms.split(","), node.inputs, strict=True))
    for term, value in operands:
        if weight_source(value) is None:
            for letter, dim in zip(term, traced.of(value), strict=True):
                tie_dims(letters.setdefault(letter, dim), dim)
    for term, value in operands:
        if weight_source(value) is not None:
            dims = tuple(
                letters.setdefault(letter, dim) for letter, dim in zip(term, traced.of(value))
            )
            summed = any(moves(letters[x]) and x not in result for x in term)
            if any(moves(dim) for dim in dims):
                add_weight(node, traced, value, dims, summed)
    traced.dims[node.outputs[0]] = tuple(letters[letter] for letter in result)
