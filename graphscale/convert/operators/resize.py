"""Translations of Resize and Upsample.

torch's F.interpolate is used where it computes the same. Elsewhere each axis is resized by itself:
'nearest' by an index, 'linear' and 'cubic' by a matrix product.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates


@translates("Upsample", numbers=(1,))
def _upsample(node, x, scales=None):
    scales = node.attribute("scales") if scales is None else scales
    return _resized(node, x, None, scales, None, "asymmetric", "floor")


@translates("Resize", numbers=(1, 2, 3))
def _resize(node, x, roi=None, scales=None, sizes=None):
    if node.opset < 11:
        return _resized(node, x, None, roi, None, "asymmetric", "floor")
    transform = node.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    return _resized(node, x, roi or None, scales or None, sizes or None, transform, rounding)


def _resized(node, x, roi, scales, sizes, transform, rounding):
    """x resized; `transform` is ONNX's coordinate transformation, `rounding` its nearest_mode."""
    axes = [axis % x.ndim for axis in node.attribute("axes", list(range(x.ndim)))]
    regions = {}
    if transform == "tf_crop_and_resize":
        regions = {axis: (roi[i], roi[len(axes) + i]) for i, axis in enumerate(axes)}
    goals = {
        axis: goal
        for axis, goal in _goals(node, x, axes, scales, sizes).items()
        if not _unchanged(x, axis, goal)  # onnxruntime does not crop such an axis either
    }
    if not all(isinstance(x.shape[axis], int) for axis in goals):
        node.fail("it resizes the batch")
    fast = _interpolation(node, x, goals, transform, rounding)
    if fast is not None:
        factors = [float(goals[a][1]) if a in goals else 1.0 for a in range(2, x.ndim)]
        if sizes is None and all(factor.is_integer() for factor in factors):
            return F.interpolate(x, scale_factor=factors, **fast)
        size = [goals[a][0] if a in goals else x.shape[a] for a in range(2, x.ndim)]
        return F.interpolate(x, size=size, **fast)
    for axis, (size, scale) in goals.items():
        x = _resize_axis(node, x, axis, size, scale, transform, rounding, regions.get(axis))
    return x


def _goals(node, x, axes, scales, sizes):
    """For each axis to resize, (new size, scale), as ONNX computes one from the other."""
    if sizes is None:
        goals = {}
        for axis, scale in zip(axes, scales):
            known = isinstance(x.shape[axis], int)
            size = np.float32(x.shape[axis]) * np.float32(scale) if known else 0
            goals[axis] = (math.floor(size), scale)
        return goals
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return {
            a: (s, s / x.shape[a] if isinstance(x.shape[a], int) else 1.0)
            for a, s in zip(axes, sizes)
        }
    pick = min if policy == "not_larger" else max
    scale = pick(size / x.shape[axis] for axis, size in zip(axes, sizes))
    return {axis: (math.floor(x.shape[axis] * scale + 0.5), scale) for axis in axes}


def _unchanged(x, axis, goal):
    size, scale = goal
    return scale == 1.0 if not isinstance(x.shape[axis], int) else size == x.shape[axis]


def _interpolation(node, x, goals, transform, rounding):
    """Arguments of F.interpolate if it computes the same, else None."""
    exact = all(
        math.isclose(size, x.shape[axis] * scale, rel_tol=1e-6)
        for axis, (size, scale) in goals.items()
    )
    if not goals or min(goals) < 2 or x.ndim not in (3, 4, 5) or not exact:
        return None
    if node.attribute("antialias", 0) or node.attribute("exclude_outside", 0):
        return None
    mode = node.attribute("mode", "nearest")
    if mode == "nearest":
        whole = all(float(scale).is_integer() for _, scale in goals.values())
        same = transform == "asymmetric" and rounding == "floor"
        same |= whole and transform == "half_pixel" and rounding.startswith("round")
        return {"mode": "nearest"} if same and whole else None
    if transform == "pytorch_half_pixel" and any(size == 1 for size, _ in goals.values()):
        return None
    if transform not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    corners = transform == "align_corners"
    if mode == "linear":
        name = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.ndim]
        return {"mode": name, "align_corners": corners}
    cubic = node.attribute("cubic_coeff_a", -0.75) == -0.75 and x.ndim == 4
    return {"mode": "bicubic", "align_corners": corners} if cubic else None


def _resize_axis(node, x, axis, size, scale, transform, rounding, region):
    """x with one axis resized to `size`."""
    mode = node.attribute("mode", "nearest")
    places = _coordinates(x.shape[axis], size, scale, transform, region)
    outside = (places < 0) | (places > x.shape[axis] - 1)
    if mode == "nearest":
        picks = np.clip(_rounded(places, rounding), 0, x.shape[axis] - 1).astype(np.int64)
        x = x.index_select(axis, torch.from_numpy(picks))
    else:
        matrix = _matrix(node, x.shape[axis], places, min(scale, 1.0), mode)
        matrix = torch.from_numpy(matrix.astype(np.float32)).to(x.dtype)
        x = torch.matmul(x.movedim(axis, -1), matrix.t()).movedim(-1, axis)
    if transform == "tf_crop_and_resize" and outside.any():
        view = [-1 if i == axis else 1 for i in range(x.ndim)]
        mask = torch.from_numpy(outside).reshape(view)
        x = torch.where(mask, node.attribute("extrapolation_value", 0.0), x)
    return x


def _coordinates(old, new, scale, transform, region):
    """Where each new element lies in the old axis: the formulas of ONNX's Resize.

    In float32 as in onnxruntime, because 'nearest' depends on how ties are rounded.
    """
    index = np.arange(new, dtype=np.float32)
    scale, last = np.float32(scale), np.float32(old - 1)
    if transform == "align_corners":
        return index * last / np.float32(new - 1) if new > 1 else index * 0
    if transform == "asymmetric":
        return index / scale
    if transform == "tf_crop_and_resize":
        start, end = np.float32(region)
        if new > 1:
            return start * last + index * (end - start) * last / np.float32(new - 1)
        return np.full(1, (start + end) * last / 2)
    half = (index + np.float32(0.5)) / scale - np.float32(0.5)
    if transform == "pytorch_half_pixel":
        return half if new > 1 else index * 0
    if transform == "half_pixel_symmetric":
        return np.float32(old / 2) * (1 - np.float32(new) / (scale * np.float32(old))) + half
    return half


def _rounded(places, rounding):
    if rounding == "floor":
        return np.floor(places)
    if rounding == "ceil":
        return np.ceil(places)
    if rounding == "round_prefer_ceil":
        return np.floor(places + 0.5)
    return np.ceil(places - 0.5)


def _matrix(node, old, places, shrink, mode):
    """The matrix (new, old) of linear or cubic interpolation at `places`.

    With antialiasing the kernel is stretched by the ratio of the sizes, so that a smaller output
    averages over the pixels that it skips.
    """
    stretch = 1.0 / shrink if node.attribute("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) * stretch
    matrix = np.zeros((len(places), old))
    for row, place in enumerate(places):
        if node.attribute("antialias", 0):
            taps = np.arange(math.floor(place - reach) + 1, math.ceil(place + reach))
        else:
            taps = np.floor(place) + np.arange(1 - int(reach), int(reach) + 1)
        distance = np.abs(taps - place) / stretch
        if mode == "linear":
            weights = np.maximum(1.0 - distance, 0.0)
        else:
            weights = _cubic(distance, node.attribute("cubic_coeff_a", -0.75))
        if node.attribute("exclude_outside", 0):
            weights = np.where((taps >= 0) & (taps < old), weights, 0.0)
        weights = weights / weights.sum()
        np.add.at(matrix[row], np.clip(taps, 0, old - 1).astype(int), weights)
    return matrix


def _cubic(distance, a):
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
