"""Networks built to be small or to reuse features: DenseNet, SqueezeNet, ShuffleNet, Xception."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, scaled


class DenseLayer(nn.Module):
    """BatchNorm-ReLU-Conv 1×1, then 3×3; its output is appended to its input."""

    def __init__(self, cin: int, growth: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(cin),
            nn.ReLU(),
            ConvBN(cin, 4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depths: tuple[int, ...], width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """DenseNet-BC (arXiv 1608.06993), growth 32 at width one."""
    growth, channels = scaled(32, width), scaled(64, width)
    layers: list[nn.Module] = [ConvBN(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        if stage:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            layers.append(nn.Conv2d(channels, channels // 2, 1, bias=False))
            layers.append(nn.AvgPool2d(2, 2))
            channels //= 2
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
    return nn.Sequential(
        *layers, nn.BatchNorm2d(channels), nn.ReLU(), Classifier(channels, num_classes)
    )


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1×1 and 3×3 side by side (arXiv 1602.07360)."""

    def __init__(self, cin: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(cin, squeezed, 1)
        self.point = nn.Conv2d(squeezed, expanded, 1)
        self.window = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.point(x)), torch.relu(self.window(x))], 1)


SQUEEZENETS = {
    "1_0": (96, 7, "p16 16 32 p32 48 48 64 p64"),
    "1_1": (64, 3, "p16 16 p32 32 p48 48 64 64"),
}


def squeezenet(version: str, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """SqueezeNet, pools that round up, a 1×1 convolution as the classifier."""
    first, kernel, plan = SQUEEZENETS[version]
    cin = scaled(first, width)
    layers: list[nn.Module] = [nn.Conv2d(3, cin, kernel, 2), nn.ReLU()]
    for word in plan.split():
        if word.startswith("p"):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        squeezed = scaled(int(word.removeprefix("p")), width, 4)
        layers.append(Fire(cin, squeezed, 4 * squeezed))
        cin = 8 * squeezed
    layers += [nn.Dropout(0.5), nn.Conv2d(cin, num_classes, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2)
    return x.reshape(batch, channels, height, width)


class ShuffleUnitV1(nn.Module):
    """Grouped bottleneck with a channel shuffle (arXiv 1707.01083, Figure 2)."""

    def __init__(self, cin: int, cout: int, groups: int, stride: int, first_groups: int):
        super().__init__()
        self.groups, self.stride = groups, stride
        middle = cout // 4
        grown = cout - cin if stride == 2 else cout
        self.reduce = ConvBN(cin, middle, groups=first_groups)
        self.depthwise = ConvBN(middle, middle, 3, stride, groups=middle, activation=None)
        self.expand = ConvBN(middle, grown, groups=groups, activation=None)
        self.pool = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle_channels(self.reduce(x), self.groups)))
        if self.stride == 2:
            return torch.relu(torch.cat([self.pool(x), y], 1))
        return torch.relu(x + y)


def shufflenet_v1(width: float = 1.0, num_classes: int = 1000, groups: int = 3) -> nn.Module:
    cin = 24
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, repeats in enumerate((4, 8, 4)):
        cout = scaled(240 * 2**stage, width, 12 * groups)
        for block in range(repeats):
            first = 1 if stage == 0 and block == 0 else groups
            layers.append(ShuffleUnitV1(cin, cout, groups, 1 if block else 2, first))
            cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))


class ShuffleUnitV2(nn.Module):
    """Half of the channels pass, half are convolved, then shuffled (arXiv 1807.11164)."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        half = cout // 2
        self.half, self.stride = half, stride
        inner = cin if stride == 2 else half
        self.main = nn.Sequential(
            ConvBN(inner, half),
            ConvBN(half, half, 3, stride, groups=half, activation=None),
            ConvBN(half, half),
        )
        self.side = nn.Sequential(
            ConvBN(cin, cin, 3, 2, groups=cin, activation=None), ConvBN(cin, half)
        )
        if stride == 1:
            self.side = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            kept, convolved = self.side(x), self.main(x)
        else:
            kept, convolved = x.chunk(2, 1)
            convolved = self.main(convolved)
        return shuffle_channels(torch.cat([kept, convolved], 1), 2)


def shufflenet_v2(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    cin = 24
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for channels, repeats in zip((116, 232, 464), (4, 8, 4)):
        cout = scaled(channels, width, 4)
        for block in range(repeats):
            layers.append(ShuffleUnitV2(cin, cout, 1 if block else 2))
            cin = cout
    last = scaled(1024, width)
    return nn.Sequential(*layers, ConvBN(cin, last), Classifier(last, num_classes))


class XceptionBlock(nn.Module):
    """Separable convolutions with a residual (arXiv 1610.02357)."""

    def __init__(self, channels: list[int], stride: int, opens_with_relu: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        for cin, cout in pairwise(channels):
            layers.append(nn.ReLU())
            layers.append(nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False))
            layers.append(ConvBN(cin, cout, activation=None))
        if not opens_with_relu:
            layers.pop(0)
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(*layers)
        changed = stride == 2 or channels[0] != channels[-1]
        self.shortcut = (
            ConvBN(channels[0], channels[-1], 1, stride, activation=None)
            if changed
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def xception(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    a, b, c, d, e, f, g, h = (scaled(n, width) for n in (32, 64, 128, 256, 728, 1024, 1536, 2048))
    return nn.Sequential(
        ConvBN(3, a, 3, 2, 0),
        ConvBN(a, b, 3, 1, 0),
        XceptionBlock([b, c, c], 2, opens_with_relu=False),
        XceptionBlock([c, d, d], 2),
        XceptionBlock([d, e, e], 2),
        *(XceptionBlock([e, e, e, e], 1) for _ in range(8)),
        XceptionBlock([e, e, f], 2),
        nn.Conv2d(f, f, 3, padding=1, groups=f, bias=False),
        ConvBN(f, g),
        nn.Conv2d(g, g, 3, padding=1, groups=g, bias=False),
        ConvBN(g, h),
        Classifier(h, num_classes),
    )
