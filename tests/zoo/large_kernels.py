"""Depthwise convolutions with large kernels: ConvNeXt, RepLKNet, SLaK, UniRepLKNet."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, SqueezeExcite, scaled


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an NCHW tensor, by permuting there and back."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, then LayerNorm and a channel MLP in NHWC, layer scale."""

    def __init__(self, channels: int, depthwise: nn.Module):
        super().__init__()
        self.depthwise = depthwise
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.2 * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(nn.functional.gelu(self.expand(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def _convnext(
    widths: Sequence[int], depthwise: Callable[[int, int], nn.Module], num_classes: int
) -> nn.Module:
    """ConvNeXt-T's frame; `depthwise` makes a convolution from a stage and its channels."""
    cin = widths[0]
    layers: list[nn.Module] = [nn.Conv2d(3, cin, 4, 4), ChannelNorm(cin)]
    for stage, (cout, repeats) in enumerate(zip(widths, (3, 3, 9, 3))):
        if stage:
            layers += [ChannelNorm(cin), nn.Conv2d(cin, cout, 2, 2)]
        layers += [ConvNeXtBlock(cout, depthwise(stage, cout)) for _ in range(repeats)]
        cin = cout
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(cin), nn.Linear(cin, num_classes)]
    return nn.Sequential(*layers, *head)


def convnext_tiny(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """ConvNeXt-T (arXiv 2201.03545), 7×7."""
    return _convnext(
        [scaled(96 * 2**stage, width) for stage in range(4)],
        lambda _, channels: nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        num_classes,
    )


class CrossKernel(nn.Module):
    """A large kernel's place taken by a tall, a wide and a small depthwise one."""

    def __init__(self, channels: int, long: int, short: int = 5):
        super().__init__()
        self.tall, self.wide, self.small = (
            ConvBN(channels, channels, kernel, groups=channels, activation=None)
            for kernel in ((long, short), (short, long), (short, short))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.tall(x) + self.wide(x) + self.small(x)


def slak_tiny(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """SLaK-T (arXiv 2207.03620), 51×5 and 5×51; its sparse weights have noughts of their own."""
    return _convnext(
        [scaled(channels, width) for channels in (124, 249, 499, 998)],
        lambda stage, channels: CrossKernel(channels, (51, 49, 47, 13)[stage]),
        num_classes,
    )


class LargeKernel(nn.Module):
    """A very large depthwise kernel beside a 5×5 one or, merged, in one with it."""

    def __init__(self, channels: int, kernel: int, merged: bool):
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(channels), ConvBN(channels, channels))
        self.large = ConvBN(channels, channels, kernel, groups=channels, activation=None)
        if merged:
            self.large = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.small = (
            None if merged else ConvBN(channels, channels, 5, groups=channels, activation=None)
        )
        self.leave = ConvBN(channels, channels, activation=None)
        self.feed = nn.Sequential(
            nn.BatchNorm2d(channels),
            ConvBN(channels, 4 * channels, activation=nn.GELU),
            ConvBN(4 * channels, channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        y = self.large(y) if self.small is None else self.large(y) + self.small(y)
        x = x + self.leave(torch.relu(y))
        return x + self.feed(x)


def replknet(
    width: float = 1.0,
    num_classes: int = 1000,
    depths: Sequence[int] = (2, 2, 18, 2),
    merged: bool = False,
) -> nn.Module:
    """RepLKNet-31B (arXiv 2203.06717) as it is trained or, merged, as it is deployed."""
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
        layers += [LargeKernel(cout, kernel, merged) for _ in range(depths[stage])]
        cin = cout
    return nn.Sequential(*layers, nn.BatchNorm2d(cin), Classifier(cin, num_classes))


class DilatedKernel(nn.Module):
    """A large depthwise kernel beside small ones with dilations (arXiv 2311.15599, Figure 2)."""

    BRANCHES = ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))  # kernel and dilation beside 13×13

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    *(channels, channels, taps),
                    padding=dilation * (taps - 1) // 2,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.BatchNorm2d(channels),
            )
            for taps, dilation in ((kernel, 1), *self.BRANCHES)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches[0](x)
        for branch in self.branches[1:]:
            y = y + branch(x)
        return y


class GlobalResponseNorm(nn.Module):
    """Channels compete by their norms over the map, NHWC (arXiv 2301.00808)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(0.2 * torch.rand(channels))
        self.offset = nn.Parameter(0.2 * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        strength = x.norm(p=2, dim=(1, 2), keepdim=True)
        share = strength / (strength.mean(-1, keepdim=True) + 1e-6)
        return (self.gain * share + 1) * x + self.offset


class UniRepLKNetBlock(nn.Module):
    """Depthwise, squeeze-and-excite, an MLP in NHWC with global response normalisation, scale."""

    def __init__(self, channels: int, kernel: int, merged: bool):
        super().__init__()
        if merged:
            self.depthwise = nn.Conv2d(
                channels, channels, kernel, padding=kernel // 2, groups=channels
            )
        elif kernel > 3:
            self.depthwise = nn.Sequential(
                DilatedKernel(channels, kernel), nn.BatchNorm2d(channels)
            )
        else:
            self.depthwise = ConvBN(channels, channels, kernel, groups=channels, activation=None)
        self.attend = SqueezeExcite(channels, max(1, channels // 4))
        self.expand = nn.Linear(channels, 4 * channels)
        self.respond = GlobalResponseNorm(4 * channels)
        self.project = nn.Linear(4 * channels, channels, bias=merged)
        self.norm = nn.Identity() if merged else nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(0.2 * torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(self.depthwise(x)).permute(0, 2, 3, 1)
        y = self.project(self.respond(nn.functional.gelu(self.expand(y))))
        return x + self.norm(y.permute(0, 3, 1, 2)) * self.scale


def unireplknet_tiny(
    width: float = 1.0, num_classes: int = 1000, merged: bool = False
) -> nn.Module:
    """UniRepLKNet-T (arXiv 2311.15599), 13×13, as it is trained or, merged, as it is deployed."""
    cin = scaled(80, width)
    layers: list[nn.Module] = [
        nn.Conv2d(3, cin // 2, 3, 2, 1),
        ChannelNorm(cin // 2),
        nn.GELU(),
        nn.Conv2d(cin // 2, cin, 3, 2, 1),
        ChannelNorm(cin),
    ]
    for stage, kernels in enumerate(((3,) * 3, (13,) * 3, (13, 3) * 9, (13,) * 3)):
        cout = scaled(80 * 2**stage, width)
        if stage:
            layers += [nn.Conv2d(cin, cout, 3, 2, 1), ChannelNorm(cout)]
        layers += [UniRepLKNetBlock(cout, kernel, merged) for kernel in kernels]
        cin = cout
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(cin), nn.Linear(cin, num_classes)]
    return nn.Sequential(*layers, *head)
