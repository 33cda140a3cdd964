"""Translations of operators that reshape, rearrange, create or convert tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates
from graphscale.convert.tensors import torch_dtype
from graphscale.convert.tracing import is_program_value

translates("Identity")(lambda node, x: x)
translates("Size", shape_only=True)(lambda node, x: torch.tensor(x.numel()))
translates("Concat")(lambda node, *xs: torch.cat(xs, node.attribute("axis", 1)))
translates("Tile", numbers=(1,))(lambda node, x, repeats: x.repeat(repeats))


@translates("Shape", shape_only=True)
def _shape(node, x):
    sizes = list(x.shape)[node.attribute("start", 0) : node.attribute("end")]
    return torch.tensor(sizes, dtype=torch.int64)


@translates("Constant")
def _constant(node):
    for name, dtype in (
        ("value", None),
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        value = node.attribute(name)
        if value is not None:
            return value if dtype is None else torch.tensor(value, dtype=dtype)
    node.fail("its value is no tensor of numbers; replace the node, or cut the model before it")


@translates("ConstantOfShape", numbers=(0,))
def _constant_of_shape(node, sizes):
    fill = node.attribute("value")
    value, dtype = (0.0, torch.float32) if fill is None else (fill.item(), fill.dtype)
    return node.create(torch.full, tuple(sizes), value, dtype=node.working_dtype(dtype))


@translates("Range", numbers=(0, 1, 2))
def _range(node, start, limit, delta):
    dtype = torch.float32 if isinstance(delta, float) else torch.int64
    return node.create(torch.arange, start, limit, delta, dtype=dtype)


@translates("Cast")
def _cast(node, x):
    dtype = torch_dtype(node.attribute("to"))
    return x.to(node.working_dtype(dtype) if is_program_value(x) else dtype)


@translates("CastLike")
def _cast_like(node, x, like):
    if is_program_value(like) and not is_program_value(x):
        return x.to(like.samples[0].dtype)  # stays a constant
    return x.to(like.dtype)


@translates("Reshape", numbers=(1,))
def _reshape(node, x, target=None):
    target = node.attribute("shape") if target is None else target
    if not node.attribute("allowzero", 0):
        target = [
            x.shape[axis] if isinstance(size, int) and size == 0 else size
            for axis, size in enumerate(target)
        ]
    return x.reshape(tuple(target))


@translates("Flatten")
def _flatten(node, x):
    axis = node.attribute("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    if axis == x.ndim:
        return x.reshape(-1, 1)
    return x.flatten(axis) if axis == 1 else x.flatten(axis).flatten(0, axis - 1)


@translates("Transpose")
def _transpose(node, x):
    return x.permute(node.attribute("perm", list(reversed(range(x.ndim)))))


@translates("Squeeze", numbers=(1,))
def _squeeze(node, x, axes=None):
    axes = node.attribute("axes") if axes is None else axes
    if axes is None:  # never the batch, even where it happens to be 1
        axes = [i for i, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    return x.squeeze(tuple(axes)) if axes else x


@translates("Unsqueeze", numbers=(1,))
def _unsqueeze(node, x, axes=None):
    axes = node.attribute("axes") if axes is None else axes
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@translates("Expand", numbers=(1,))
def _expand(node, x, target):
    lead = len(target) - x.ndim
    target = [-1] * -lead + list(target)
    return x.expand(
        [
            -1 if axis >= lead and isinstance(size, int) and size == 1 else size
            for axis, size in enumerate(target)
        ]
    )


@translates("DepthToSpace")
def _depth_to_space(node, x):
    block = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@translates("SpaceToDepth")
def _space_to_depth(node, x):
    block = node.attribute("blocksize")
    n, c, h, w = x.shape
    if node.attribute("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)
