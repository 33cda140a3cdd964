"""Tell from shapes alone how the weights of one network are resized into a module's."""

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


def resized_weights(pretrain: Mapping[str, torch.Tensor], target: nn.Module) -> list[WeightPlan]:
    """The weights whose shapes differ, for growing without a plan.

    Convolutions resize their kernels. A fully-connected layer's rows are taken for the square map
    of the convolution before it (in the order of the modules), which is all that shapes can tell.

    Args:
        pretrain: The pre-train network's tensors by name.
        target: A module of the target network.

    Raises:
        GraphScaleError: another weight differs, or the rows fit no such map; names it.
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
    """Factors C, H, W of a fully-connected layer's rows over C square maps."""
    if not channels or any(size % channels for size in sizes):
        return None
    target, pretrain = (isqrt(size // channels) for size in sizes)
    if (target**2 * channels, pretrain**2 * channels) != tuple(sizes):
        return None
    return [(channels, channels), (target, pretrain), (target, pretrain)]
