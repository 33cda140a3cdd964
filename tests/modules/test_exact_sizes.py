"""Classes whose forward takes for granted that a convolution keeps the size of its map."""

import pytest
import torch
from torch import nn

import graphscale

from .rescaled import images


class Tokens(nn.Module):
    """A 3×3 convolution between two views of the same number of tokens, as in TinyViT."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.local = nn.Conv2d(8, 8, 3, 1, 1)
        self.mixed = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        batch, channels, height, width = x.shape
        tokens = self.local(x).view(batch, channels, height * width)
        x = self.mixed(tokens.view(batch, channels, height, width))
        return self.head(x.mean((2, 3)))


def test_kernels_of_three_pixels_stay_where_the_class_needs_exact_sizes() -> None:
    torch.manual_seed(0)
    target = Tokens().eval()
    with pytest.warns(UserWarning, match="Tokens: kernels of 3 pixels keep their size, because"):
        small = graphscale.shrink(target, torch.randn(2, 3, 56, 56))
    assert type(small) is Tokens
    assert small.graphscale_plan.image_size == (40, 40)
    assert small.stem.kernel_size == (5, 5)
    assert small.local.kernel_size == small.mixed.kernel_size == (3, 3)
    assert torch.equal(small.local.weight, target.local.weight)
    x = images(small)
    wanted = nn.functional.conv2d(x, small.stem.weight, small.stem.bias, 2, 2).relu()
    wanted = small.head(small.mixed(small.local(wanted)).mean((2, 3)))
    torch.testing.assert_close(small(x), wanted)
    assert graphscale.grow(small).stem.kernel_size == (7, 7)
