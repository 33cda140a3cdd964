"""The few pieces that almost every network of the zoo is made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """Channel count at a width multiplier, a multiple of divisor, never zero."""
    if width == 1.0:
        return channels
    return max(divisor, round(channels * width / divisor) * divisor)


def same_padding(kernel: int | tuple[int, int]) -> int | tuple[int, int]:
    if isinstance(kernel, tuple):
        return kernel[0] // 2, kernel[1] // 2
    return kernel // 2


class ConvBN(nn.Sequential):
    """Convolution, BatchNorm and an activation; 'same' padding unless told otherwise."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ):
        padding = same_padding(kernel) if padding is None else padding
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """Channel attention from the global average (arXiv 1709.01507), with 1×1 convolutions."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ):
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        attention = x.mean((2, 3), keepdim=True)
        attention = self.expand(self.activation(self.reduce(attention)))
        return x * self.gate(attention)


class Classifier(nn.Sequential):
    """Global average pool, flatten, fully-connected layer."""

    def __init__(self, channels: int, classes: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def randomise(module: nn.Module, example: Tensor, seed: int = 0) -> nn.Module:
    """Kaiming weights, small biases, BatchNorm statistics of the example, slightly disturbed.

    The statistics are measured, not drawn, so that activations keep a sane range at any depth.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: Tensor, std: float, mean: float = 0.0) -> None:
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * std + mean)

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                fan_in = layer.weight[0].numel()
                if isinstance(layer, nn.ConvTranspose2d):
                    covered = layer.weight[0, 0].numel() / (layer.stride[0] * layer.stride[1])
                    fan_in = layer.in_channels // layer.groups * covered
                normal(layer.weight, (2.0 / fan_in) ** 0.5)
                if layer.bias is not None:
                    normal(layer.bias, 0.05)
            elif isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
                normal(layer.weight, 0.1, mean=1.0)
                normal(layer.bias, 0.1)
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        if norms:
            module.train()
            module(example)
        for layer in norms:
            spread = torch.rand(layer.running_var.shape, generator=generator)
            layer.running_var.mul_(0.8 + 0.4 * spread).clamp_(min=1e-3)
            layer.momentum = 0.1
    return module.eval()
