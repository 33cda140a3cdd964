"""The three target networks of the experiment, each for 64×64 images.

- `overfeat`: kernels of 7, 5 and 3, max-pooling and a fully-connected interface, as OverFeat-fast.
- `resnet`: a 7×7 stem, basic blocks of 3×3 and global pooling, as ResNet-34.
- `mobilenet`: inverted residuals with depthwise kernels of 3 and 5, as MobileNetV3.
"""

from __future__ import annotations

from torch import Tensor, nn


def overfeat(channels: int, classes: int) -> nn.Module:
    """15 M multiplications an image."""
    return nn.Sequential(
        *_convolution(channels, 12, 7, stride=2),
        *_convolution(12, 24, 5),
        nn.MaxPool2d(2),
        *_convolution(24, 32, 3),
        *_convolution(32, 48, 3),
        nn.MaxPool2d(2),
        *_convolution(48, 48, 3),
        nn.Flatten(),
        nn.Linear(48 * 8 * 8, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, classes),
    )


class _BasicBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, filters, 3, stride=stride),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def resnet(channels: int, classes: int) -> nn.Module:
    """13 M multiplications an image."""
    return nn.Sequential(
        *_convolution(channels, 12, 7, stride=2),
        _BasicBlock(12, 12, 1),
        _BasicBlock(12, 24, 2),
        _BasicBlock(24, 24, 1),
        _BasicBlock(24, 48, 2),
        _BasicBlock(48, 48, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, classes),
    )


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.body = nn.Sequential(
            *_convolution(channels, inner, 1),
            *_convolution(inner, inner, kernel, stride=stride, groups=inner),
            nn.Conv2d(inner, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet(channels: int, classes: int) -> nn.Module:
    """5 M multiplications an image."""
    return nn.Sequential(
        *_convolution(channels, 12, 7, stride=2),
        _InvertedResidual(12, 16, 3, 2),
        _InvertedResidual(16, 16, 5, 1),
        _InvertedResidual(16, 32, 5, 2),
        _InvertedResidual(32, 32, 5, 1),
        _InvertedResidual(32, 32, 5, 1),
        *_convolution(32, 128, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


NETWORKS = {"overfeat": overfeat, "resnet": resnet, "mobilenet": mobilenet}


def _convolution(
    channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
