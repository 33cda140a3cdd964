"""Attention in windows whose size has other names than Swin's: the class is built smaller."""

import pytest
import torch
from torch import nn

import graphscale

from .rescaled import assert_close, images, shrink


def attend(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens @ tokens.transpose(-2, -1) / 8).softmax(-1) @ tokens


class Local(nn.Module):
    """Square windows whose size is one number, as in Twins."""

    def __init__(self, ws: int) -> None:
        super().__init__()
        self.ws = ws

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        down, across = height // self.ws, width // self.ws
        x = x.reshape(batch, down, self.ws, across, self.ws, channels).transpose(2, 3)
        x = attend(x.reshape(batch, down * across, self.ws**2, channels))
        x = x.reshape(batch, down, across, self.ws, self.ws, channels).transpose(2, 3)
        return x.reshape(batch, height, width, channels)


class Partition(nn.Module):
    def forward(self, x: torch.Tensor, p: int) -> torch.Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(batch, height // p * (width // p), p * p, channels)


class Partitioned(nn.Module):
    """Windows, or a grid over the whole map, as in torchvision's MaxViT."""

    def __init__(self, kind: str, side: int, size: int) -> None:
        super().__init__()
        self.partition_type, self.grid_size = kind, (side, side)
        self.n_partitions = side // size
        both = size, self.n_partitions
        self.p, self.g = both if kind == "window" else both[::-1]
        self.partition_op = Partition()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down, across = (side // self.p for side in self.grid_size)
        tokens = self.partition_op(x, self.p)
        if self.partition_type == "grid":
            tokens = attend(tokens.transpose(-2, -3)).transpose(-2, -3)
        else:
            tokens = attend(tokens)
        x = tokens.reshape(len(x), down, across, self.p, self.p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), -1, down * self.p, across * self.p)


class Network(nn.Module):
    def __init__(self, name: str, image: int, size: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 4, 4)
        self.last = name == "ws"
        side = image // 4
        self.layer = Local(size) if self.last else Partitioned(name, side, size)
        self.head = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.layer(x)
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize("name", ["ws", "window", "grid"])
def test_the_pretrain_network_is_the_class_built_smaller(name: str) -> None:
    torch.manual_seed(0)
    small = shrink(Network(name, 56, 7).eval(), torch.randn(2, 3, 56, 56), kernels={3: 3})
    (side, _) = small.graphscale_plan.image_size
    built = Network(name, side, 5).eval()
    built.load_state_dict(small.state_dict())
    x = images(small)
    assert_close(small(x), built(x))
    assert type(graphscale.grow(small)) is Network
