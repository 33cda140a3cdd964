"""Translations of reductions over axes: ReduceSum and its kind, ArgMax and ArgMin."""

from __future__ import annotations

import torch

from graphscale.convert.operators.registry import translates


def _axes(node, x, axes):
    """The axes to reduce; None where there is nothing to reduce."""
    axes = node.attribute("axes") if axes is None else axes
    if not axes:
        return None if node.attribute("noop_with_empty_axes", 0) else list(range(x.ndim))
    return [axis % x.ndim for axis in axes]


def _reduction(name, reduce, inner=None, outer=None):
    """Register `name` as outer(reduce(inner(x), axes, keepdim))."""

    def function(node, x, axes=None):
        axes = _axes(node, x, axes)
        x = inner(x) if inner else x
        if axes is not None:
            x = reduce(x, axes, bool(node.attribute("keepdims", 1)))
        return outer(x) if outer else x

    translates(name, numbers=(1,))(function)


def _product(x, axes, keepdim):
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim)
    return x


def _sum(x, axes, keepdim):
    result = torch.sum(x, axes, keepdim)
    return result if x.is_floating_point() else result.to(x.dtype)


_reduction("ReduceSum", _sum)
_reduction("ReduceMean", torch.mean)
_reduction("ReduceMax", torch.amax)
_reduction("ReduceMin", torch.amin)
_reduction("ReduceProd", _product)
_reduction("ReduceL1", _sum, inner=torch.abs)
_reduction("ReduceSumSquare", _sum, inner=torch.square)
_reduction("ReduceLogSum", _sum, outer=torch.log)


@translates("ReduceL2", numbers=(1,))
def _reduce_l2(node, x, axes=None):
    # Not the square root of a sum, whose gradient is NaN where all elements are 0.
    axes = _axes(node, x, axes)
    if axes is None:
        return x.abs()
    return torch.linalg.vector_norm(x, 2, axes, bool(node.attribute("keepdims", 1)))


@translates("ReduceLogSumExp", numbers=(1,))
def _reduce_log_sum_exp(node, x, axes=None):
    axes = _axes(node, x, axes)
    return x if axes is None else torch.logsumexp(x, axes, bool(node.attribute("keepdims", 1)))


def _arg(name, function):
    """Register ArgMax or ArgMin; the last index, if wanted, is the first of the flipped input."""

    def entry(node, x):
        axis, keepdim = node.attribute("axis", 0) % x.ndim, bool(node.attribute("keepdims", 1))
        if not node.attribute("select_last_index", 0):
            return function(x, axis, keepdim)
        return x.shape[axis] - 1 - function(torch.flip(x, (axis,)), axis, keepdim)

    translates(name)(entry)


_arg("ArgMax", torch.argmax)
_arg("ArgMin", torch.argmin)
