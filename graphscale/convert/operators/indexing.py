"""Translations of operators that pick, move or repeat elements: Slice, Gather, Scatter, Pad …"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates

_ALL = 2**31 - 1  # exporters write this, or a larger number, for 'to the end'
_TORCH_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@translates("Slice", numbers=(1, 2, 3, 4))
def _slice(node, x, starts=None, ends=None, axes=None, steps=None):
    if starts is None:
        starts, ends = node.attribute("starts"), node.attribute("ends")
        axes = node.attribute("axes")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    picks = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis %= x.ndim
        if step < 0:
            x = _backwards(x, start, end, axis, step)
        else:
            stop = None if isinstance(end, int) and end >= _ALL else _place(end)
            picks[axis] = slice(_place(start), stop, step)
    return x[tuple(picks)] if any(pick != slice(None) for pick in picks) else x


def _place(number):
    """A start or end in the range that torch takes without a warning; exporters exceed it."""
    return min(max(number, -_ALL), _ALL) if isinstance(number, int) else number


def _backwards(x, start, end, axis, step):
    """x[start:end:step] along an axis with a negative step, which torch's slices do not take."""
    size = x.shape[axis]
    start = min(start + size if start < 0 else start, size - 1)
    end = max(end + size if end < 0 else end, -1)
    return x.index_select(axis, torch.arange(start, end, step))


@translates("Split", numbers=(1,))
def _split(node, x, sizes=None):
    axis = node.attribute("axis", 0) % x.ndim
    sizes = node.attribute("split") if sizes is None else sizes
    if sizes is None:
        part = -(-x.shape[axis] // node.output_count)
        sizes = [part] * (node.output_count - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    parts = torch.split(x, sizes, axis)
    return tuple(parts[index] for index in range(node.output_count))


# ONNX's sequence of tensors is a tuple of tensors. The node's one output is that tuple, so these
# functions return a list of one tuple.
translates("SequenceConstruct")(lambda node, *xs: [xs])
translates("SequenceAt", numbers=(1,))(lambda node, sequence, position: sequence[position])


@translates("SplitToSequence", numbers=(1,))
def _split_to_sequence(node, x, sizes=None):
    axis = node.attribute("axis", 0) % x.ndim
    length = x.shape[axis]
    if sizes is None and not node.attribute("keepdims", 1):
        return [tuple(x.select(axis, index) for index in range(length))]
    sizes = 1 if sizes is None else sizes
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    parts = torch.split(x, sizes, axis)
    return [tuple(parts[index] for index in range(len(sizes)))]


@translates("ConcatFromSequence")
def _concat_from_sequence(node, sequence):
    join = torch.stack if node.attribute("new_axis", 0) else torch.cat
    return join(sequence, node.attribute("axis"))


def _positive(indices, size):
    """`indices` as int64, negative ones replaced by their positions from the front."""
    if isinstance(indices, torch.Tensor) and not (indices < 0).any():
        return indices.to(torch.int64)
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@translates("Gather", weights=(0,))
def _gather(node, x, indices):
    axis = node.attribute("axis", 0) % x.ndim
    if isinstance(indices, torch.Tensor) and indices.ndim == 0:
        return x.select(axis, int(indices))
    indices = _positive(indices, x.shape[axis])
    if indices.ndim == 1:
        return x.index_select(axis, indices)
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@translates("GatherElements")
def _gather_elements(node, x, indices):
    axis = node.attribute("axis", 0)
    return torch.gather(x, axis, _positive(indices, x.shape[axis]))


@translates("GatherND")
def _gather_nd(node, x, indices):
    if node.attribute("batch_dims", 0):
        node.fail("batch_dims is not supported")
    return x[_places(indices)]


@translates("ScatterND")
def _scatter_nd(node, x, indices, updates):
    reduction = node.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        node.fail(f"reduction {reduction!r} is not supported")
    return torch.index_put(x, _places(indices), updates, accumulate=reduction == "add")


def _places(indices):
    """An index tensor (..., n) as n index tensors, one per axis, for torch's indexing."""
    indices = indices.to(torch.int64)
    return tuple(indices[..., i] for i in range(indices.shape[-1]))


@translates("ScatterElements")
def _scatter_elements(node, x, indices, updates):
    reduction = node.attribute("reduction", "none")
    axis = node.attribute("axis", 0)
    indices = _positive(indices, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, indices, updates)
    kind = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction]
    return torch.scatter_reduce(x, axis, indices, updates, kind)


@translates("Pad", numbers=(1, 2, 3))
def _pad(node, x, pads=None, value=None, axes=None):
    mode = node.attribute("mode", "constant")
    if pads is None:
        pads = node.attribute("pads", node.attribute("paddings"))
        value = node.attribute("value", 0.0)
    value = value[0] if isinstance(value, list) else value
    axes = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    amounts = {axis: (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    amounts = {axis: both for axis, both in amounts.items() if any(both)}
    if not amounts:
        return x
    if mode == "constant":
        return F.pad(x, _pairs(amounts, x.ndim, min(amounts)), value=value or 0.0)
    # F.pad reflects and repeats along spatial axes only; other axes are indexed one by one below.
    if min(amounts) >= 2 and x.ndim in (3, 4, 5) and min(map(min, amounts.values())) >= 0:
        return F.pad(x, _pairs(amounts, x.ndim, 2), mode=_TORCH_MODES[mode])
    for axis, (begin, end) in amounts.items():
        places = np.arange(x.shape[axis])
        places = places[max(-begin, 0) : len(places) - max(-end, 0)]
        places = np.pad(places, (max(begin, 0), max(end, 0)), mode=mode)
        x = x.index_select(axis, torch.from_numpy(places))
    return x


def _pairs(amounts, rank, first):
    """Padding in F.pad's order: (before, after) from the last axis down to `first`."""
    axes = reversed(range(first, rank))
    return [amount for axis in axes for amount in amounts.get(axis, (0, 0))]


@translates("Trilu", numbers=(1,))
def _trilu(node, x, diagonal=0):
    diagonal = diagonal[0] if isinstance(diagonal, list) else diagonal
    return torch.triu(x, diagonal) if node.attribute("upper", 1) else torch.tril(x, diagonal)


@translates("TopK", numbers=(1,))
def _top_k(node, x, k=None):
    k = node.attribute("k") if k is None else k[0] if isinstance(k, list) else k
    axis, largest = node.attribute("axis", -1), bool(node.attribute("largest", 1))
    # torch.topk takes any of equal elements, ONNX the first: hence a stable sort.
    result = torch.sort(x, stable=True, dim=axis, descending=largest)
    return result[0].narrow(axis, 0, k), result[1].narrow(axis, 0, k)
