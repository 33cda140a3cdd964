"""Tensors are replaced in place: same object, dtype, memory format."""

import pytest
import torch
from torch import nn

import graphscale
from graphscale.modules.module_state import copy_module, fill, memory_format
from tests.zoo import build

from .rescaled import shrink

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def assert_channels_last(module: nn.Module) -> None:
    for name, weight in module.named_parameters():
        if weight.ndim in LAST:
            assert weight.is_contiguous(memory_format=LAST[weight.ndim]), name


def test_channels_last_survives_shrink_and_grow() -> None:
    """All of ResNet-18's weights keep the format, by every function that grows."""
    target = build("resnet18", 0.25, 10).to(memory_format=torch.channels_last)
    shrunk = shrink(target, torch.randn(1, 3, 64, 64))
    assert_channels_last(shrunk)
    assert_channels_last(graphscale.grow(shrunk))
    assert_channels_last(graphscale.grow(shrunk, target=target))
    plain = build("resnet18", 0.25, 10)
    assert all(
        each.is_contiguous() for each in shrink(plain, torch.randn(1, 3, 64, 64)).parameters()
    )


class FixedSize(nn.Module):
    """Has a size of the target in its forward, so that the imported graph replaces it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 2, 2)
        self.linear = nn.Linear(8 * 16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).reshape(-1, 8 * 16 * 16))


def test_channels_last_survives_in_the_imported_graph() -> None:
    target = FixedSize().to(memory_format=torch.channels_last)
    with pytest.warns(UserWarning, match=r"graphscale\.load"):
        shrunk = graphscale.shrink(target, torch.randn(1, 3, 32, 32))
    assert_channels_last(shrunk)
    assert_channels_last(graphscale.grow(shrunk))
    assert_channels_last(graphscale.shrink(shrunk))


def test_three_axes() -> None:
    target = nn.Sequential(nn.Conv3d(3, 4, 3, 2, 1)).to(memory_format=torch.channels_last_3d)
    shrunk = shrink(target, torch.randn(1, 3, 16, 16, 16))
    assert_channels_last(shrunk)
    assert_channels_last(graphscale.grow(shrunk))


def test_filled_parameters_stay_the_same_objects() -> None:
    layer = nn.Conv2d(3, 4, 3, dtype=torch.float16).to(memory_format=torch.channels_last)
    weight = layer.weight
    weight.grad = torch.zeros_like(weight)
    fill(layer, {"weight": torch.ones(4, 3, 2, 2), "unknown": torch.ones(1)})
    assert layer.weight is weight
    assert weight.shape == (4, 3, 2, 2)
    assert (weight.dtype, weight.grad) == (torch.float16, None)
    assert memory_format(weight) == torch.channels_last


def test_a_kernel_kept_as_an_attribute_is_copied() -> None:
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    layer(torch.randn(1, 3, 8, 8))
    assert torch.equal(copy_module(layer).weight_v, layer.weight_v)
