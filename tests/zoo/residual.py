"""Residual networks: ResNet, ResNeXt, SE-ResNet, Res2Net, RegNet."""

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, SqueezeExcite, scaled


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)), the shortcut a projection where the shape changes."""

    def __init__(self, body: nn.Module, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = body
        change = stride != 1 or cin != cout
        self.shortcut = ConvBN(cin, cout, 1, stride, activation=None) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def basic_body(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(ConvBN(cin, cout, 3, stride), ConvBN(cout, cout, 3, activation=None))


def bottleneck_body(
    cin: int, middle: int, cout: int, stride: int, groups: int = 1, squeezed: int = 0
) -> nn.Sequential:
    layers: list[nn.Module] = [
        ConvBN(cin, middle, 1),
        ConvBN(middle, middle, 3, stride, None, groups),
    ]
    layers.append(ConvBN(middle, cout, 1, activation=None))
    layers += [SqueezeExcite(cout, squeezed)] if squeezed else []
    return nn.Sequential(*layers)


def stem(channels: int) -> list[nn.Module]:
    return [ConvBN(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]


DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def resnet(
    depth: int, width: float = 1.0, num_classes: int = 1000, squeeze: bool = False
) -> nn.Module:
    """ResNet (arXiv 1512.03385); with squeeze, SE-ResNet (arXiv 1709.01507)."""
    cin = scaled(64, width)
    layers = stem(cin)
    for stage, repeats in enumerate(DEPTHS[depth]):
        middle = scaled(64 * 2**stage, width)
        cout = middle if depth < 50 else 4 * middle
        for block in range(repeats):
            stride = 2 if stage > 0 and block == 0 else 1
            if depth < 50:
                body = basic_body(cin, cout, stride)
            else:
                squeezed = cout // 16 if squeeze else 0
                body = bottleneck_body(cin, middle, cout, stride, squeezed=squeezed)
            layers.append(Residual(body, cin, cout, stride))
            cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))


def resnext50(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """ResNeXt-50 32×4d (arXiv 1611.05431); a smaller width means fewer groups."""
    groups = max(2, round(32 * width))
    cin = scaled(64, width)
    layers = stem(cin)
    for stage, repeats in enumerate(DEPTHS[50]):
        middle = groups * 4 * 2**stage
        for block in range(repeats):
            stride = 2 if stage > 0 and block == 0 else 1
            body = bottleneck_body(cin, middle, 2 * middle, stride, groups)
            layers.append(Residual(body, cin, 2 * middle, stride))
            cin = 2 * middle
    return nn.Sequential(*layers, Classifier(cin, num_classes))


class Res2NetSplit(nn.Module):
    """The 3×3 layer of Res2Net (arXiv 1904.01169): a hierarchy over four slices of channels."""

    def __init__(self, piece: int, stride: int, scales: int = 4):
        super().__init__()
        self.piece, self.strided = piece, stride != 1
        self.convs = nn.ModuleList(ConvBN(piece, piece, 3, stride) for _ in range(scales - 1))
        self.pool = nn.AvgPool2d(3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        *convolved, last = torch.split(x, self.piece, 1)
        outputs: list[Tensor] = []
        for piece, conv in zip(convolved, self.convs):
            outputs.append(conv(piece + outputs[-1] if outputs and not self.strided else piece))
        return torch.cat([*outputs, self.pool(last) if self.strided else last], 1)


def res2net50(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    cin = scaled(64, width)
    layers = stem(cin)
    for stage, repeats in enumerate(DEPTHS[50]):
        piece = scaled(26 * 2**stage, width, 2)
        cout = scaled(256 * 2**stage, width)
        for block in range(repeats):
            stride = 2 if stage > 0 and block == 0 else 1
            body = nn.Sequential(
                ConvBN(cin, 4 * piece),
                Res2NetSplit(piece, stride),
                ConvBN(4 * piece, cout, activation=None),
            )
            layers.append(Residual(body, cin, cout, stride))
            cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))


# depths, widths, group width (arXiv 2003.13678, the 400 MF models)
REGNETS = {
    "x": ((1, 2, 7, 12), (32, 64, 160, 400), 16),
    "y": ((1, 3, 6, 6), (48, 104, 208, 440), 8),
}


def regnet(kind: str, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """RegNetX-400MF or, with squeeze-and-excitation, RegNetY-400MF."""
    depths, widths, group_width = REGNETS[kind]
    cin = scaled(32, width)
    layers: list[nn.Module] = [ConvBN(3, cin, 3, 2)]
    for repeats, channels in zip(depths, widths):
        cout = scaled(channels, width, group_width)
        for block in range(repeats):
            stride = 2 if block == 0 else 1
            body = nn.Sequential(
                ConvBN(cin, cout),
                ConvBN(cout, cout, 3, stride, None, cout // group_width),
                *([SqueezeExcite(cout, max(4, cin // 4))] if kind == "y" else []),
                ConvBN(cout, cout, activation=None),
            )
            layers.append(Residual(body, cin, cout, stride))
            cin = cout
    return nn.Sequential(*layers, Classifier(cin, num_classes))
