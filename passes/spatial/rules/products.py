"""Matrix products: MatMul, Gemm and Einsum.

Where a weight is summed over a dimension that holds a height or width, it is a fully-connected
interface. Where two computed tensors are, as in attention, their sizes are tied.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from graphscale.core.resampling import adaptive_averages
from graphscale.passes.graph.fixed_weights import mark_fixed
from graphscale.passes.graph.weight_source import tensor_of, weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    Dim,
    Dims,
    fixed,
    moves,
    single_size,
    target_size,
    tie_dims,
)
from graphscale.passes.spatial.registry import MatrixProductRule, ShapeOf, register
from graphscale.passes.spatial.rewriter import Rewriter
from graphscale.passes.spatial.rules.resize import Resampling

_MAX_POOLED = 256  # pixels; a larger matrix is taken for a weight


class _TwoMatrices(MatrixProductRule):
    """What MatMul and Gemm have in common."""

    @abstractmethod
    def summed(self, node: ir.Node, index: int) -> int:
        """Position, from the end, of the dimension of input `index` that is summed over."""

    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        return shape[self.summed(node, index)] if len(shape) > 1 else shape[0]

    def multiplications(self, node: ir.Node, shape: ShapeOf) -> int:
        other = 1 - self.weight_input(node)
        products = self.fan_in(node, other, shape(node.inputs[other]))
        return products * prod(shape(node.outputs[0])[1:])


@register("MatMul")
class _MatMul(_TwoMatrices):
    """Y = A·B, with a batch of matrices in the dimensions before the last two.

    A constant matrix of averages is adaptive pooling by windows of different sizes, along the axis
    that it is multiplied with.
    """

    def weight_input(self, node: ir.Node) -> int | None:
        return None if _averages(node) is not None else super().weight_input(node)

    def summed(self, node: ir.Node, index: int) -> int:
        return -1 if index == 0 else -2

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        first, second = node.inputs[:2]
        one, other = analyzer.of(first), analyzer.of(second)
        if len(one) < 2 or len(other) < 2:
            if any(map(moves, (*one, *other))):
                raise unfollowed(node, "multiplies by a vector")
            analyzer.dims[node.outputs[0]] = tuple(map(fixed, analyzer.shape(node.outputs[0])))
            return
        pooled = self._pooled(node, analyzer)
        if pooled is not None:
            analyzer.dims[node.outputs[0]] = pooled
            return
        _contract(node, analyzer, (first, one, len(one) - 1), (second, other, len(other) - 2))
        batch = _broadcast(one[:-2], other[:-2])
        analyzer.dims[node.outputs[0]] = (*batch, one[-2], other[-1])

    def _pooled(self, node: ir.Node, analyzer: Analyzer) -> Dims | None:
        """The output's dimensions if a matrix of averages pools a map, else None."""
        matrix = _averages(node)
        if matrix is None:
            return None
        dims = analyzer.of(node.inputs[1 - matrix])
        at = len(dims) - (2 if matrix == 0 else 1)
        size = analyzer.shape(node.outputs[0])[at]
        if single_size(dims[at]) is None:
            return None
        averages = Resampling(target_size(dims[at]), size, "half_pixel")
        pooled = analyzer.resize(node, at, dims[at], size, averages)
        return (*dims[:at], pooled, *dims[at + 1 :])

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        matrix = _averages(node)
        for averages in rewriter.parameters(node).values():
            held = node.inputs[matrix]
            numbers = adaptive_averages(averages.before, averages.size)
            numbers = (numbers if matrix == 0 else numbers.T).astype(held.dtype.numpy())
            value = rewriter.add_initializer(held.name, np.ascontiguousarray(numbers))
            mark_fixed(value)
            node.replace_input_with(matrix, value)


@register("Gemm")
class _Gemm(_TwoMatrices):
    """Y = A·B + C, of matrices that may be given transposed."""

    bias_input = 2

    def summed(self, node: ir.Node, index: int) -> int:
        transposed = bool(node.attributes.get_int(("transA", "transB")[index], 0))
        return -1 if (index == 0) != transposed else -2

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        first, second = node.inputs[:2]
        one, other = analyzer.of(first), analyzer.of(second)
        # Of a matrix's dimensions 0 and 1, one is summed over (-2 % 2 is 0), the other one stays.
        left, right = (self.summed(node, index) % 2 for index in (0, 1))
        _contract(node, analyzer, (first, one, left), (second, other, right))
        analyzer.dims[node.outputs[0]] = (one[1 - left], other[1 - right])


@register("Einsum")
class _Einsum(MatrixProductRule):
    """Any sum of products; a constant operand is its weight where it is summed over."""

    def weight_input(self, node: ir.Node) -> int | None:
        terms, result = _equation(node)
        held = self._held(node) if len(terms) > 1 else []
        return next((index for index in held if set(terms[index]) - set(result)), None)

    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        terms, result = _equation(node)
        sizes = _letters(terms[index], shape)
        return prod(size for letter, size in sizes.items() if letter not in result)

    def multiplications(self, node: ir.Node, shape: ShapeOf) -> int:
        """Operands are summed over what only they have before they are multiplied."""
        terms, result = _equation(node)
        index = self.weight_input(node)
        sizes = _letters(terms[index], shape(node.inputs[index]))  # overwritten where a map moves
        for other, (term, value) in enumerate(zip(terms, node.inputs)):
            if other != index:
                sizes |= _letters(term, shape(value))
        summed = set(terms[index]) - set(result)
        return prod(sizes[letter] for letter in summed) * prod(shape(node.outputs[0])[1:])

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        terms, result = _equation(node)
        if any("..." in term for term in (*terms, result)):
            if any(moves(dim) for value in node.inputs for dim in analyzer.of(value)):
                equation = node.attributes["equation"].value
                raise unfollowed(node, f"has the equation {equation!r}")
            return
        letters: dict[str, Dim] = {}
        operands = list(zip(terms, node.inputs, strict=True))
        for term, value in operands:
            if weight_source(value) is None:
                for letter, dim in zip(term, analyzer.of(value), strict=True):
                    tie_dims(letters.setdefault(letter, dim), dim)
        for term, value in operands:
            if weight_source(value) is not None:
                dims = tuple(
                    letters.setdefault(letter, dim) for letter, dim in zip(term, analyzer.of(value))
                )
                summed = any(moves(letters[x]) and x not in result for x in term)
                if any(moves(dim) for dim in dims):
                    analyzer.add_weight(node, value, dims, summed)
        analyzer.dims[node.outputs[0]] = tuple(letters[letter] for letter in result)


def _equation(node: ir.Node) -> tuple[list[str], str]:
    """The terms of an Einsum's operands, and its result's, which may be left out of the text."""
    equation = node.attributes["equation"].value.replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms).replace("...", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    return terms, result


def _letters(term: str, shape: Sequence[int]) -> dict[str, int]:
    """The sizes of a term's letters; dimensions that its '...' stands for have none."""
    before, _, after = term.partition("...")
    return dict(zip(before, shape)) | dict(zip(after[::-1], shape[::-1]))


def _averages(node: ir.Node) -> int | None:
    """Which input of a MatMul is the matrix of adaptive average pooling; None if there is none."""
    for at, value in enumerate(node.inputs):
        if weight_source(value) is not value:
            continue
        tensor = tensor_of(value)
        shape = tuple(tensor.shape)
        if len(shape) != 2 or max(shape) > _MAX_POOLED or not tensor.dtype.is_floating_point():
            continue
        source, target = shape if at == 1 else shape[::-1]
        wanted = adaptive_averages(source, target)
        wanted = (wanted.T if at == 1 else wanted).astype(tensor.dtype.numpy())
        if np.array_equal(tensor.numpy(), wanted):
            return at
    return None


def _contract(node: ir.Node, analyzer: Analyzer, first, second) -> None:
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
            analyzer.add_weight(node, weight, dims, summed=True)
            return
    if not tie_dims(left_dims[i], right_dims[j]):
        raise unfollowed(node, "sums over sizes of different origins")


def _broadcast(first: Dims, second: Dims) -> Dims:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    shorter = (*(() for _ in range(len(longer) - len(shorter))), *shorter)
    for one, other in zip(longer, shorter):
        if one and other:
            tie_dims(one, other)
    return tuple(one or other for one, other in zip(longer, shorter))
