"""Infer from shapes alone how weights are resized, where there is no plan.

In: the pre-train network's tensors and a module of the target. Out: a `WeightPlan` for each weight
whose shape differs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd as _Convolution

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import WeightPlan

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_REMEDY = "give the plan, which graphscale.plan(target, example_input) makes again"


def weight_plans_from_shapes(
    pretrain: Mapping[str, torch.Tensor], target: nn.Module
) -> list[WeightPlan]:
    """How to grow each weight whose shape differs from the target's.

    A convolution's kernel is resized along its spatial axes. A fully-connected layer's inputs are
    taken to be maps of the last convolution before it, in the order of the modules. Their number
    must leave one size for the maps in each network: 16 and 9 pixels are 4×4 and 3×3, but 256 and
    144 are 16×16 and 12×12, or 8×32 and 6×24.

    Args:
        pretrain: The pre-train network's tensors by name.
        target: A module of the target network.

    Raises:
        GraphScaleError: a weight of another layer differs, or the inputs fit no maps, or maps of
            several sizes; names the weight.
    """
    found: list[WeightPlan] = []
    last: _Convolution | None = None  # in the order of the modules
    for path, layer in target.named_modules():
        for key, weight in layer.named_parameters(recurse=False):
            name = f"{path}.{key}" if path else key
            other = pretrain.get(name)
            if other is None or other.shape == weight.shape:
                continue
            pairs = list(zip(weight.shape, other.shape))
            factors = None
            if isinstance(layer, _CONVOLUTIONS) and weight.shape[:2] == other.shape[:2]:
                factors = [[pair] for pair in pairs]
            elif isinstance(layer, nn.Linear) and weight.shape[0] == other.shape[0]:
                rows = None if last is None else _rows(pairs[1], last, name)
                factors = None if rows is None else [[pairs[0]], rows]
            if factors is None:
                raise GraphScaleError(
                    f"weight {name!r} has the shape {list(other.shape)} and in the target "
                    f"{list(weight.shape)}, which shapes alone do not explain; {_REMEDY}"
                )
            kind = "interface" if isinstance(layer, nn.Linear) else "kernel"
            found.append(WeightPlan(name, kind, factors))
        if isinstance(layer, _CONVOLUTIONS):
            last = layer
    return found


def _rows(sizes: tuple[int, int], last: _Convolution, name: str) -> list[tuple[int, int]] | None:
    """Factors C, H, W … of a fully-connected layer's inputs, the maps of the convolution `last`."""
    channels, rank = last.out_channels, last.weight.ndim - 2
    if any(size % channels for size in sizes):
        return None
    target, pretrain = (_boxes(size // channels, rank) for size in sizes)
    readings = [
        list(zip(large, small))
        for large in target
        for small in pretrain
        if all(after <= before for before, after in zip(large, small))
    ]
    if len(readings) > 1:
        examples = " or ".join(
            " to ".join("×".join(map(str, map_)) for map_ in zip(*reading))
            for reading in sorted(readings, key=_elongation)[:2]
        )
        raise GraphScaleError(
            f"weight {name!r} stands on maps of {sizes[0] // channels} pixels, and in the "
            f"checkpoint of {sizes[1] // channels}, which may be {examples}; {_REMEDY}"
        )
    return [(channels, channels), *readings[0]] if readings else None


def _boxes(pixels: int, rank: int) -> list[tuple[int, ...]]:
    """The sizes of maps of so many pixels; of several axes, none is a single pixel long."""
    if rank == 1:
        return [(pixels,)]
    sides = [side for side in range(2, pixels // 2 + 1) if pixels % side == 0]
    return [(side, *box) for side in sides for box in _boxes(pixels // side, rank - 1)]


def _elongation(reading: list[tuple[int, int]]) -> list[float]:
    """How far the maps of both networks are from squares, to name likely ones first."""
    return [max(sides) / min(sides) for sides in zip(*reading)]
