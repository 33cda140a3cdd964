"""Large kernels and re-parametrised convolutions: ConvNeXt, RepLKNet, RepVGG."""

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, scaled


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an NCHW tensor, by permuting there and back."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7×7, then LayerNorm and a channel MLP in NHWC, layer scale (arXiv 2201.03545)."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.2 * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(nn.functional.gelu(self.expand(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def convnext_tiny(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    cin = scaled(96, width)
    layers: list[nn.Module] = [nn.Conv2d(3, cin, 4, 4), ChannelNorm(cin)]
    for stage, repeats in enumerate((3, 3, 9, 3)):
        cout = scaled(96 * 2**stage, width)
        if stage:
            layers += [ChannelNorm(cin), nn.Conv2d(cin, cout, 2, 2)]
        layers += [ConvNeXtBlock(cout) for _ in range(repeats)]
        cin = cout
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(cin), nn.Linear(cin, num_classes)]
    return nn.Sequential(*layers, *head)


class LargeKernel(nn.Module):
    """A very large depthwise kernel beside a 5×5 one (arXiv 2203.06717)."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(channels), ConvBN(channels, channels))
        self.large = ConvBN(channels, channels, kernel, groups=channels, activation=None)
        self.small = ConvBN(channels, channels, 5, groups=channels, activation=None)
        self.leave = ConvBN(channels, channels, activation=None)
        self.feed = nn.Sequential(
            nn.BatchNorm2d(channels),
            ConvBN(channels, 4 * channels, activation=nn.GELU),
            ConvBN(4 * channels, channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        x = x + self.leave(torch.relu(self.large(y) + self.small(y)))
        return x + self.feed(x)


def replknet(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """RepLKNet-31 with two blocks where the paper's has two, two, eighteen, two."""
    cin = scaled(128, width)
    layers: list[nn.Module] = [
        ConvBN(3, cin, 3, 2),
        ConvBN(cin, cin, 3, groups=cin),
        ConvBN(cin, cin),
        ConvBN(cin, cin, 3, 2, groups=cin),
    ]
    for stage, kernel in enumerate((31, 29, 27, 13)):
        cout = scaled(128 * 2**stage, width)
        if stage:
            layers += [ConvBN(cin, cout), ConvBN(cout, cout, 3, 2, groups=cout)]
        layers += [LargeKernel(cout, kernel) for _ in range(2)]
        cin = cout
    return nn.Sequential(*layers, nn.BatchNorm2d(cin), Classifier(cin, num_classes))


class RepVGGBlock(nn.Module):
    """3×3, 1×1 and identity side by side, each with BatchNorm (arXiv 2101.03697)."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.window = ConvBN(cin, cout, 3, stride, activation=None)
        self.point = ConvBN(cin, cout, 1, stride, activation=None)
        self.norm = nn.BatchNorm2d(cin) if cin == cout and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.window(x) + self.point(x)
        return torch.relu(y if self.norm is None else y + self.norm(x))


def repvgg(width: float = 1.0, num_classes: int = 1000, fused: bool = False) -> nn.Module:
    """RepVGG-A0 as it is trained or, fused, as it is deployed: one 3×3 convolution a layer."""
    layers: list[nn.Module] = []
    cin = 3
    for channels, repeats in zip((48, 48, 96, 192, 1280), (1, 2, 4, 14, 1)):
        cout = scaled(channels, width)
        for block in range(repeats):
            stride = 1 if block else 2
            if fused:
                layers += [nn.Conv2d(cin, cout, 3, stride, 1), nn.ReLU()]
            else:
                layers.append(RepVGGBlock(cin, cout, stride))
            cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))
