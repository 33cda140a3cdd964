"""Resize one weight between the networks, as its plan says (Eq. 2, 5 and 6 of arXiv 1610.03623).

In go a tensor and its `WeightPlan`; out comes a lazy tensor of the other network's shape, whose
numbers are computed when it is written or read. A tensor that holds infinity, or numbers too large
to be resized, is a GraphScaleError then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from math import prod

import ml_dtypes  # noqa: F401  (numpy's bfloat16)
import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.log_offsets import KINDS as LOG_KINDS
from graphscale.core.log_offsets import log_offsets
from graphscale.core.lookups import lookup_indices
from graphscale.core.plan import (
    COORDINATE_KINDS,
    DERIVED_KINDS,
    Factor,
    JoinedFactor,
    WeightPlan,
    dimension_sizes,
    factor_sizes,
)
from graphscale.core.resampling import (
    coordinate_matrix,
    growth_matrix,
    interpolation_matrix,
    shrink_matrix,
)
from graphscale.core.shifted_windows import KIND as SHIFTED_WINDOWS
from graphscale.core.shifted_windows import crosses_border

_BLOCK = 1 << 22  # numbers that are resized at once
# Rows of the Kronecker product of neighbouring axes' matrices up to which one product with it takes
# the place of one product per axis: the matrix is small, and numpy has fewer calls to make.
_MAX_KRONECKER_ROWS = 1024

# (target, pre-train) sizes of an axis -> the matrix that resizes it.
_Matrix = Callable[[int, int], np.ndarray]


class _NotFiniteError(Exception):
    """Why a weight would hold infinity or NaN after resizing; its text says what it holds."""


def grow_tensor(
    tensor: ir.TensorProtocol, plan: WeightPlan, method: str, *, squared: bool = False
) -> ir.TensorProtocol:
    """The target weight of a pre-train weight; its numbers are computed when they are read.

    With `squared`, every entry of the matrices is squared. This is how the variances of independent
    taps grow, and is used for the second moments that optimizers keep.
    """

    def matrix(target: int, pretrain: int) -> np.ndarray:
        if plan.kind in COORDINATE_KINDS:
            found = coordinate_matrix(pretrain, target, plan.kind)
        elif plan.kind == "table":
            found = interpolation_matrix(pretrain, target, method)
        else:
            found = growth_matrix(pretrain, target, method)
        return found * found if squared else found

    return _lazy(tensor, plan, matrix, 1, plan.target_shape)


def shrink_tensor(tensor: ir.TensorProtocol, plan: WeightPlan, method: str) -> ir.TensorProtocol:
    """The pre-train weight whose growth is nearest to a target weight; computed when it is read."""

    def matrix(target: int, pretrain: int) -> np.ndarray:
        if plan.kind in COORDINATE_KINDS:
            return coordinate_matrix(target, pretrain, plan.kind)
        if plan.kind == "table":
            return np.linalg.pinv(interpolation_matrix(pretrain, target, method))
        return shrink_matrix(target, pretrain, method)

    return _lazy(tensor, plan, matrix, 0, plan.pretrain_shape)


def _lazy(
    tensor: ir.TensorProtocol, plan: WeightPlan, matrix: _Matrix, given: int, shape: list[int]
) -> ir.LazyTensor:
    """The resized tensor; `given` is the index of the given network's size in a factor's sizes."""
    factors = [factor for dim in plan.factors for factor in dim]

    def compute() -> ir.TensorProtocol:
        if plan.kind in DERIVED_KINDS:
            sizes = [sizes[1 - given] for sizes in _long(plan.factors)]
            array = _derived(tensor, plan.kind, sizes)
            return ir.Tensor(array.reshape(shape), tensor.dtype, name=tensor.name)
        array = tensor.numpy().reshape([factor_sizes(factor)[given] for factor in factors])
        try:
            array = _resize(array, factors, matrix, given)
        except _NotFiniteError as error:
            raise GraphScaleError(
                f"weight {plan.name!r} holds {error}; go back to a checkpoint from before the "
                "training diverged"
            ) from None
        return ir.Tensor(array.reshape(shape), tensor.dtype, name=tensor.name)

    return ir.LazyTensor(
        compute, dtype=tensor.dtype, shape=ir.Shape(shape), name=tensor.name, cache=False
    )


def _long(dims: Sequence[Sequence[Factor]]) -> list[tuple[int, int]]:
    """The sizes of all factors, also of those that are joined, but for dimensions of one place."""
    found: list[tuple[int, int]] = []
    for dim in dims:
        if [factor_sizes(factor) for factor in dim] == [(1, 1)]:
            continue
        for factor in dim:
            if isinstance(factor, JoinedFactor):
                found += _long(factor.parts)
            else:
                found.append((factor[0], factor[1]))
    return found


def _derived(tensor: ir.TensorProtocol, kind: str, sizes: list[int]) -> np.ndarray:
    """The numbers of a table of one of `DERIVED_KINDS` at these sizes of its factors."""
    if kind in LOG_KINDS:
        long = [size for size in tensor.shape.numpy() if size > 1]
        made = log_offsets(kind, tensor.numpy().reshape(long), sizes)
        return made.astype(tensor.dtype.numpy())
    if kind != SHIFTED_WINDOWS:
        return lookup_indices(kind, sizes).astype(tensor.dtype.numpy())
    given = tensor.numpy()
    return np.where(crosses_border(sizes), given.min(), np.zeros((), given.dtype))


def _resize(
    array: np.ndarray, factors: Sequence[Factor], matrix: _Matrix, given: int
) -> np.ndarray:
    """Resize `array`, which has one axis for each factor, to the other network's sizes."""
    joined = [axis for axis, each in enumerate(factors) if isinstance(each, JoinedFactor)]
    if not joined:
        return apply(array, [None if a == b else matrix(a, b) for a, b in factors])
    axis = joined[0]
    factor = factors[axis]
    # Each part of a joined axis belongs to a map of its own, so each is cut out, its factors become
    # axes, it is resized by itself, and the results are joined again. The recursion handles further
    # joined axes, also inside a part.
    ends = list(accumulate(dimension_sizes(part)[given] for part in factor.parts))
    resized = []
    for part, piece in zip(factor.parts, np.split(array, ends[:-1], axis), strict=True):
        sizes = [factor_sizes(each)[given] for each in part]
        piece = piece.reshape(*piece.shape[:axis], *sizes, *piece.shape[axis + 1 :])
        piece = _resize(piece, [*factors[:axis], *part, *factors[axis + 1 :]], matrix, given)
        after = axis + len(part)
        resized.append(piece.reshape(*piece.shape[:axis], -1, *piece.shape[after:]))
    return np.concatenate(resized, axis)


def apply(array: np.ndarray, matrices: list[np.ndarray | None]) -> np.ndarray:
    """Multiply `array` by a matrix along each axis that has one.

    Computed in float32 (float64 arrays in float64) and returned in the array's own dtype. Blocks
    along the first axis bound the memory that the copies take. A block whose sums exceed float32
    is computed again in float64. NaN spreads as in any product.

    Raises:
        _NotFiniteError: `array` holds infinity, whose products with zeros would be NaN, or a result
            is too large for its dtype.
    """
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    steps = _steps(matrices)
    result = np.empty(
        [m.shape[0] if m is not None else n for m, n in zip(matrices, array.shape)], array.dtype
    )
    if matrices and matrices[0] is None and array.shape[0] > 1:
        rows = max(1, _BLOCK // max(1, array[0].size))
        blocks = [slice(i, i + rows) for i in range(0, array.shape[0], rows)]
    else:
        blocks = [slice(None)]
    with np.errstate(over="ignore", invalid="ignore"):  # the results are looked at instead
        for block in blocks:
            given = array[block]
            result[block] = _multiply(given, steps, dtype)
            if np.isfinite(result[block]).all() or np.isnan(given).any():
                continue
            if np.isinf(given).any():
                raise _NotFiniteError("infinity, which cannot be resized")
            result[block] = _multiply(given, steps, np.float64)
            if not np.isfinite(result[block]).all():
                raise _NotFiniteError(f"numbers that, resized, are too large for {array.dtype}")
    return result


def _multiply(
    part: np.ndarray, steps: list[tuple[int, list[int], np.ndarray]], dtype: type[np.floating]
) -> np.ndarray:
    """Multiply by the matrix of each of `steps`, computed in `dtype`."""
    part = part.astype(dtype)
    # Each step is one product: the axes before it are a batch, the axes behind it columns.
    for first, sizes, step in steps:
        lead, trail = part.shape[:first], part.shape[first + len(sizes) :]
        flat = part.reshape(prod(lead), step.shape[1], prod(trail))
        flat = (
            np.matmul(step.astype(dtype), flat)
            if flat.shape[2] > 1
            else (flat[:, :, 0] @ step.T.astype(dtype))
        )
        part = flat.reshape(*lead, *sizes, *trail)
    return part


def _steps(matrices: list[np.ndarray | None]) -> list[tuple[int, list[int], np.ndarray]]:
    """(first axis, new sizes, matrix): neighbouring axes in one product where it is small."""
    steps = []
    for resized, group in groupby(range(len(matrices)), key=lambda i: matrices[i] is not None):
        axes = list(group)
        if not resized:
            continue
        sizes = [matrices[axis].shape[0] for axis in axes]
        if prod(sizes) <= _MAX_KRONECKER_ROWS:
            whole = matrices[axes[0]]
            for axis in axes[1:]:
                whole = np.kron(whole, matrices[axis])
            steps.append((axes[0], sizes, whole))
        else:
            steps += [(axis, [matrices[axis].shape[0]], matrices[axis]) for axis in axes]
    return steps
