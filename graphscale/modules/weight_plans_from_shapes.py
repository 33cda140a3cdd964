"""Infer from shapes alone how weights are resized, where there is no plan.

In: the pre-train network's tensors and a module of the target. Out: a `WeightPlan` for each weight
whose shape differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import WeightPlan

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def weight_plans_from_shapes(
    pretrain: Mapping[str, torch.Tensor], target: nn.Module
) -> list[WeightPlan]:
    """How to grow each weight whose shape differs from the target's.

    A convolution's kernel is resized along its spatial axes. A fully-connected layer's inputs are
    taken to be square maps of the last convolution before it, in the order of the modules.

    Args:
        pretrain: The pre-train network's tensors by name.
        target: A module of the target network.

    Raises:
        GraphScaleError: a weight of another layer differs, or the inputs fit no square maps; names
            the weight.
    """
    found: list[WeightPlan] = []
    channels = 0
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
                rows = _rows(pairs[1], channels)
                factors = None if rows is None else [[pairs[0]], rows]
            if factors is None:
                raise GraphScaleError(
                    f"weight {name!r} has the shape {list(other.shape)} and in the target "
                    f"{list(weight.shape)}, which shapes alone do not explain; give the plan"
                )
            kind = "interface" if isinstance(layer, nn.Linear) else "kernel"
            found.append(WeightPlan(name, kind, factors))
        if isinstance(layer, _CONVOLUTIONS):
            channels = layer.out_channels
    return found


def _rows(sizes: tuple[int, int], channels: int) -> list[tuple[int, int]] | None:
    """Factors C, H, W of the inputs of a fully-connected layer behind C square maps."""
    if not channels or any(size % channels for size in sizes):
        return None
    target, pretrain = (isqrt(size // channels) for size in sizes)
    if (target**2 * channels, pretrain**2 * channels) != tuple(sizes):
        return None
    return [(channels, channels), (target, pretrain), (target, pretrain)]
