"""Attention in shifted windows, as in Swin: the pre-train network is the same class built smaller.

`Swin` takes the size of its images and of its windows, so that the right pre-train network is the
one that the class itself makes.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale

from .rescaled import shrink


class Block(nn.Module):
    """Attention in the windows of a map of `side` pixels, shifted by half a window or not.

    The mask is a buffer, as in timm, or computed in `forward`, as in torchvision.
    """

    def __init__(
        self, channels: int, side: int, window: int, shifted: bool, held: bool = True
    ) -> None:
        super().__init__()
        self.window_size = (window, window)
        self.shift_size = (window // 2,) * 2 if shifted else (0, 0)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, 2))
        pixels = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = pixels[:, None] - pixels[None] + window - 1
        index = apart[..., 0] * (2 * window - 1) + apart[..., 1]
        self.register_buffer("index", index, persistent=False)
        mask = self.mask(side, window, window // 2) if shifted and held else None
        self.register_buffer("attn_mask", mask, persistent=False)

    def mask(self, side: int, window: int, shift: int) -> torch.Tensor:
        regions = torch.zeros(1, side, side, 1)
        parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for count, (rows, columns) in enumerate((r, c) for r in parts for c in parts):
            regions[:, rows, columns] = count
        flat = self.windows(regions).flatten(1)
        apart = flat[:, None] - flat[:, :, None]
        return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)

    def windows(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        side = self.window_size[0]
        x = x.view(batch, height // side, side, width // side, side, channels)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side * side, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, height, width, channels = x.shape
        side, shift = self.window_size[0], self.shift_size[0]
        before, x = x, self.norm(x)
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        tokens = self.windows(x)
        q, k, v = (
            each.reshape(tokens.shape[0], side * side, 2, -1).transpose(1, 2)
            for each in self.qkv(tokens).split(channels, dim=-1)
        )
        bias = self.table[self.index.view(-1)].view(side**2, side**2, -1).permute(2, 0, 1)
        scores = q @ k.transpose(-2, -1) + bias.unsqueeze(0)
        if shift:
            mask = self.mask(height, side, shift) if self.attn_mask is None else self.attn_mask
            scores = scores.view(-1, len(mask), *scores.shape[1:]) + mask[None, :, None]
            scores = scores.view(-1, *scores.shape[2:])
        x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, side, side, channels)
        x = x.view(-1, height // side, width // side, side, side, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, channels)
        return before + (torch.roll(x, (shift, shift), (1, 2)) if shift else x)


class Merge(nn.Module):
    """Blocks of two by two pixels become channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        return self.reduction(x.permute(0, 1, 3, 4, 2, 5).flatten(3))


class Swin(nn.Module):
    def __init__(self, image: int, window: int, held: bool) -> None:
        super().__init__()
        side = image // 4
        both = (False, True)  # not shifted, shifted
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.Sequential(*(Block(8, side, window, each, held) for each in both))
        self.merge = Merge(8)
        self.second = nn.Sequential(*(Block(16, side // 2, window, each, held) for each in both))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(F.gelu(self.embed(x)).permute(0, 2, 3, 1))
        return self.head(self.second(self.merge(x)).mean((1, 2)))


# A map of 14 pixels has no smaller size that windows of 7 divide: they become windows of 5. Maps of
# 24 and 12 pixels become maps of 16 and 8 pixels, which windows of 4 divide.
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    ("image", "window", "small_image", "small_window"), [(112, 7, 80, 5), (96, 4, 64, 4)]
)
def test_the_pretrain_network_is_the_class_built_smaller(
    image: int, window: int, small_image: int, small_window: int, held: bool
) -> None:
    torch.manual_seed(0)
    target = Swin(image, window, held).eval()
    small = shrink(target, torch.randn(2, 3, image, image), init="resize")
    assert small.graphscale_plan.image_size == (small_image, small_image)
    built = Swin(small_image, small_window, held).eval()
    for name, buffer in built.named_buffers():
        assert torch.equal(small.get_buffer(name), buffer), name
    built.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, small_image, small_image)
    torch.testing.assert_close(small(x), built(x))
    grown = graphscale.grow(small)
    for name, buffer in target.named_buffers():
        assert torch.equal(grown.get_buffer(name), buffer), name
    grown.load_state_dict(target.state_dict())
    x = torch.randn(2, 3, image, image)
    torch.testing.assert_close(grown(x), target(x))


def test_the_module_grows_in_place_where_forward_computes_the_mask() -> None:
    torch.manual_seed(0)
    small = shrink(Swin(112, 7, held=False).eval(), torch.randn(1, 3, 112, 112), init="resize")
    assert graphscale.grow_(small) is small
    built = Swin(112, 7, held=False).eval()
    for name, buffer in built.named_buffers():
        assert torch.equal(small.get_buffer(name), buffer), name
    built.load_state_dict(small.state_dict())
    x = torch.randn(1, 3, 112, 112)
    torch.testing.assert_close(small(x), built(x))
