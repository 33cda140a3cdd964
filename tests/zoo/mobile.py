"""Networks of depthwise convolutions: MobileNets, MNASNet, EfficientNet, MixNet, GhostNet."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, SqueezeExcite, scaled

Activation = Callable[[], nn.Module]


class MixedDepthwise(nn.Module):
    """Depthwise convolution with several kernel sizes over slices of channels (1907.09595)."""

    def __init__(self, channels: int, kernels: tuple[int, ...], stride: int):
        super().__init__()
        share = channels // len(kernels)
        self.sizes = [channels - share * (len(kernels) - 1)] + [share] * (len(kernels) - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(size, size, k, stride, k // 2, groups=size, bias=False)
            for size, k in zip(self.sizes, kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(x, self.sizes, 1)
        return torch.cat([conv(piece) for conv, piece in zip(self.convs, pieces)], 1)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project (arXiv 1801.04381 and its children)."""

    def __init__(
        self,
        cin: int,
        middle: int,
        cout: int,
        kernel: int | tuple[int, ...],
        stride: int,
        activation: Activation = nn.ReLU6,
        squeezed: int = 0,
        gate: Activation = nn.Sigmoid,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        if middle != cin:
            layers.append(ConvBN(cin, middle, activation=activation))
        if isinstance(kernel, tuple):
            layers += [MixedDepthwise(middle, kernel, stride), nn.BatchNorm2d(middle), activation()]
        else:
            layers.append(ConvBN(middle, middle, kernel, stride, None, middle, activation))
        if squeezed:
            inner = nn.ReLU if gate is nn.Hardsigmoid else activation
            layers.append(SqueezeExcite(middle, squeezed, inner, gate))
        layers.append(ConvBN(middle, cout, activation=None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v1(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """MobileNet (arXiv 1704.04861)."""
    cin = scaled(32, width)
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2)]
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    rows += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for channels, stride in rows:
        cout = scaled(channels, width)
        layers += [ConvBN(cin, cin, 3, stride, None, cin), ConvBN(cin, cout)]
        cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))


# expansion, channels, repeats, stride, kernel, squeeze-and-excite
MOBILENET_V2 = [
    (1, 16, 1, 1, 3, False),
    (6, 24, 2, 2, 3, False),
    (6, 32, 3, 2, 3, False),
    (6, 64, 4, 2, 3, False),
    (6, 96, 3, 1, 3, False),
    (6, 160, 3, 2, 3, False),
    (6, 320, 1, 1, 3, False),
]
MNASNET_A1 = [
    (1, 16, 1, 1, 3, False),
    (6, 24, 2, 2, 3, False),
    (3, 40, 3, 2, 5, True),
    (6, 80, 4, 2, 3, False),
    (6, 112, 2, 1, 3, True),
    (6, 160, 3, 2, 5, True),
    (6, 320, 1, 1, 3, False),
]
EFFICIENTNET = [
    (1, 16, 1, 1, 3, True),
    (6, 24, 2, 2, 3, True),
    (6, 40, 2, 2, 5, True),
    (6, 80, 3, 2, 3, True),
    (6, 112, 3, 1, 5, True),
    (6, 192, 4, 2, 5, True),
    (6, 320, 1, 1, 3, True),
]
MIXNET = [
    (1, 16, 1, 1, 3, False),
    (6, 24, 2, 2, (3,), False),
    (6, 40, 3, 2, (3, 5, 7), True),
    (6, 80, 3, 2, (3, 5, 7), True),
    (6, 120, 3, 1, (3, 5, 7, 9), True),
    (6, 200, 3, 2, (3, 5, 7, 9), True),
]


def inverted_residual_net(
    rows: list[tuple],
    last: int,
    activation: Activation,
    width: float = 1.0,
    num_classes: int = 1000,
    depth: float = 1.0,
) -> nn.Module:
    """MobileNet v2, MNASNet-A1, EfficientNet-B0 and -B1, MixNet: one scheme, four tables."""
    cin = scaled(32, width)
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2, activation=activation)]
    for expansion, channels, repeats, first_stride, kernel, squeeze in rows:
        cout = scaled(channels, width)
        for block in range(math.ceil(repeats * depth)):
            stride = 1 if block else first_stride
            squeezed = max(4, cin // 4) if squeeze else 0
            block_args = (cin, cin * expansion, cout, kernel, stride, activation, squeezed)
            layers.append(InvertedResidual(*block_args))
            cin = cout
    final = scaled(last, width)
    layers.append(ConvBN(cin, final, activation=activation))
    return nn.Sequential(*layers, nn.Dropout(0.2), Classifier(final, num_classes))


# kernel, expanded, channels, squeeze-and-excite, hard-swish, stride (arXiv 1905.02244)
MOBILENET_V3 = {
    "large": [
        (3, 16, 16, 0, 0, 1),
        (3, 64, 24, 0, 0, 2),
        (3, 72, 24, 0, 0, 1),
        (5, 72, 40, 1, 0, 2),
        (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1),
        (3, 240, 80, 0, 1, 2),
        (3, 200, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1),
        (3, 672, 112, 1, 1, 1),
        (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    ],
    "small": [
        (3, 16, 16, 1, 0, 2),
        (3, 72, 24, 0, 0, 2),
        (3, 88, 24, 0, 0, 1),
        (5, 96, 40, 1, 1, 2),
        (5, 240, 40, 1, 1, 1),
        (5, 240, 40, 1, 1, 1),
        (5, 120, 48, 1, 1, 1),
        (5, 144, 48, 1, 1, 1),
        (5, 288, 96, 1, 1, 2),
        (5, 576, 96, 1, 1, 1),
        (5, 576, 96, 1, 1, 1),
    ],
}


def mobilenet_v3(size: str, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    cin = scaled(16, width)
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2, activation=nn.Hardswish)]
    for kernel, expanded, channels, squeeze, hard, stride in MOBILENET_V3[size]:
        middle, cout = scaled(expanded, width), scaled(channels, width)
        activation = nn.Hardswish if hard else nn.ReLU
        squeezed = scaled(middle // 4, 1.0) if squeeze else 0
        layers.append(
            InvertedResidual(
                cin, middle, cout, kernel, stride, activation, squeezed, nn.Hardsigmoid
            )
        )
        cin = cout
    last, hidden = 6 * cin, scaled(1280 if size == "large" else 1024, width)
    layers += [ConvBN(cin, last, activation=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(last, hidden), nn.Hardswish(), nn.Linear(hidden, num_classes)]
    return nn.Sequential(*layers)


class UniversalBottleneck(nn.Module):
    """Inverted bottleneck with optional depthwise layers before and inside (arXiv 2404.10518)."""

    def __init__(
        self, cin: int, cout: int, before: int, inside: int, stride: int, expansion: float
    ):
        super().__init__()
        middle = scaled(int(cin * expansion), 1.0)
        layers: list[nn.Module] = []
        if before:
            early = 1 if inside else stride
            layers.append(ConvBN(cin, cin, before, early, None, cin, activation=None))
        layers.append(ConvBN(cin, middle))
        if inside:
            layers.append(ConvBN(middle, middle, inside, stride, None, middle))
        layers.append(ConvBN(middle, cout, activation=None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


# channels, kernel before, kernel inside, stride, expansion (MobileNetV4-Conv-S)
MOBILENET_V4 = [
    (96, 5, 5, 2, 3.0),
    (96, 0, 3, 1, 2.0),
    (96, 0, 3, 1, 2.0),
    (96, 0, 3, 1, 2.0),
    (96, 0, 3, 1, 2.0),
    (96, 3, 0, 1, 4.0),
    (128, 3, 3, 2, 6.0),
    (128, 5, 5, 1, 4.0),
    (128, 0, 5, 1, 4.0),
    (128, 0, 5, 1, 3.0),
    (128, 0, 3, 1, 4.0),
    (128, 0, 3, 1, 4.0),
]


def mobilenet_v4(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """The small convolutional MobileNet v4."""
    a, b, c = scaled(32, width), scaled(96, width), scaled(64, width)
    layers: list[nn.Module] = [ConvBN(3, a, 3, 2), ConvBN(a, a, 3, 2), ConvBN(a, a)]
    layers += [ConvBN(a, b, 3, 2), ConvBN(b, c)]
    cin = c
    for channels, before, inside, stride, expansion in MOBILENET_V4:
        cout = scaled(channels, width)
        layers.append(UniversalBottleneck(cin, cout, before, inside, stride, expansion))
        cin = cout
    last, hidden = scaled(960, width), scaled(1280, width)
    layers += [ConvBN(cin, last), nn.AdaptiveAvgPool2d(1), ConvBN(last, hidden)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden, num_classes))


class Ghost(nn.Module):
    """Half of the outputs by a convolution, half by cheap depthwise ones (arXiv 1911.11907)."""

    def __init__(self, cin: int, cout: int, activation: Activation | None = nn.ReLU):
        super().__init__()
        self.cout, half = cout, math.ceil(cout / 2)
        self.primary = ConvBN(cin, half, activation=activation)
        self.cheap = ConvBN(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.cout]


class GhostBottleneck(nn.Module):
    def __init__(self, cin: int, middle: int, cout: int, kernel: int, stride: int, squeeze: int):
        super().__init__()
        layers: list[nn.Module] = [Ghost(cin, middle)]
        if stride > 1:
            layers.append(ConvBN(middle, middle, kernel, stride, None, middle, activation=None))
        if squeeze:
            layers.append(SqueezeExcite(middle, max(4, middle // 4), gate=nn.Hardsigmoid))
        layers.append(Ghost(middle, cout, activation=None))
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride > 1 or cin != cout:
            self.shortcut = nn.Sequential(
                ConvBN(cin, cin, kernel, stride, None, cin, activation=None),
                ConvBN(cin, cout, activation=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


# kernel, expanded, channels, squeeze-and-excite, stride
GHOSTNET = [
    (3, 16, 16, 0, 1),
    (3, 48, 24, 0, 2),
    (3, 72, 24, 0, 1),
    (5, 72, 40, 1, 2),
    (5, 120, 40, 1, 1),
    (3, 240, 80, 0, 2),
    (3, 200, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 480, 112, 1, 1),
    (3, 672, 112, 1, 1),
    (5, 672, 160, 1, 2),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 1, 1),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 1, 1),
]


def ghostnet(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    cin = scaled(16, width)
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2)]
    for kernel, expanded, channels, squeeze, stride in GHOSTNET:
        middle, cout = scaled(expanded, width), scaled(channels, width, 4)
        layers.append(GhostBottleneck(cin, middle, cout, kernel, stride, squeeze))
        cin = cout
    last, hidden = scaled(960, width), scaled(1280, width)
    layers += [ConvBN(cin, last), nn.AdaptiveAvgPool2d(1), nn.Conv2d(last, hidden, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden, num_classes))
