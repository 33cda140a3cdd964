"""Networks that keep or join several resolutions: HRNet, feature pyramids, DLA."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .blocks import Classifier, ConvBN, scaled
from .residual import Residual, basic_body, bottleneck_body, stem


class Exchange(nn.Module):
    """Every resolution receives every other: strided 3×3 down, 1×1 and Resize up (1908.07919)."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.paths = nn.ModuleList()
        for to, cout in enumerate(channels):
            row = nn.ModuleList()
            for source, cin in enumerate(channels):
                if source < to:
                    steps = [ConvBN(cin, cin, 3, 2) for _ in range(to - source - 1)]
                    row.append(nn.Sequential(*steps, ConvBN(cin, cout, 3, 2, activation=None)))
                elif source > to:
                    row.append(ConvBN(cin, cout, activation=None))
                else:
                    row.append(nn.Identity())
            self.paths.append(row)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = []
        for to, row in enumerate(self.paths):
            size = maps[to].shape[-2:]
            total = maps[to]
            for source, path in enumerate(row):
                if source == to:
                    continue
                moved = path(maps[source])
                total = total + (interpolate(moved, size=size) if source > to else moved)
            outputs.append(torch.relu(total))
        return outputs


class HRNet(nn.Module):
    """HRNet-W18 with one module of two blocks in each stage; all resolutions feed the head."""

    def __init__(self, width: float, num_classes: int):
        super().__init__()
        first, middle = scaled(64, width), scaled(32, width)
        self.stem = nn.Sequential(
            ConvBN(3, first, 3, 2),
            ConvBN(first, first, 3, 2),
            Residual(bottleneck_body(first, middle, 4 * middle, 1), first, 4 * middle, 1),
        )
        channels = [scaled(18 * 2**i, width, 2) for i in range(4)]
        self.transitions = nn.ModuleList([ConvBN(4 * middle, channels[0], 3)])
        self.stages, self.exchanges = nn.ModuleList(), nn.ModuleList()
        for count in (2, 3, 4):
            self.transitions.append(ConvBN(channels[count - 2], channels[count - 1], 3, 2))
            self.stages.append(
                nn.ModuleList(
                    nn.Sequential(*(Residual(basic_body(c, c, 1), c, c, 1) for _ in range(2)))
                    for c in channels[:count]
                )
            )
            self.exchanges.append(Exchange(channels[:count]))
        self.head = nn.Sequential(
            ConvBN(sum(channels), 4 * first), Classifier(4 * first, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.transitions[0](self.stem(x))]
        for transition, stage, exchange in zip(self.transitions[1:], self.stages, self.exchanges):
            maps = [*maps, transition(maps[-1])]
            maps = exchange([branch(y) for branch, y in zip(stage, maps)])
        size = maps[0].shape[-2:]
        maps = [interpolate(y, size=size, mode="bilinear", align_corners=False) for y in maps]
        return self.head(torch.cat(maps, 1))


def hrnet_w18(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    return HRNet(width, num_classes)


class FeaturePyramid(nn.Module):
    """A ResNet-18 body, top-down nearest Resize and lateral sums (1612.03144): several outputs."""

    def __init__(self, width: float, num_classes: int, by_scale: bool):
        super().__init__()
        channels = [scaled(64 * 2**i, width) for i in range(4)]
        self.stages = nn.ModuleList([nn.Sequential(*stem(channels[0]))])
        cin = channels[0]
        for index, cout in enumerate(channels):
            stride = 2 if index else 1
            first = Residual(basic_body(cin, cout, stride), cin, cout, stride)
            second = Residual(basic_body(cout, cout, 1), cout, cout, 1)
            self.stages.append(nn.Sequential(first, second))
            cin = cout
        pyramid = scaled(256, width)
        self.by_scale = by_scale
        self.lateral = nn.ModuleList(nn.Conv2d(c, pyramid, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in channels)
        self.predict = nn.Conv2d(pyramid, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.stages[0](x)
        for stage, lateral in zip(self.stages[1:], self.lateral):
            x = stage(x)
            maps.append(lateral(x))
        for level in (2, 1, 0):
            above = maps[level + 1]
            if self.by_scale:
                above = interpolate(above, scale_factor=2.0)
            else:
                above = interpolate(above, size=maps[level].shape[-2:])
            maps[level] = maps[level] + above
        return [self.predict(torch.relu(conv(y))) for conv, y in zip(self.smooth, maps)]


def fpn(by_scale: bool, width: float = 1.0, num_classes: int = 80) -> nn.Module:
    return FeaturePyramid(width, num_classes, by_scale)


class DlaTree(nn.Module):
    """Two subtrees whose leaves are concatenated in one root (arXiv 1707.06484)."""

    def __init__(self, levels: int, cin: int, cout: int, stride: int, extra: int = 0):
        super().__init__()
        self.deep = levels > 1
        if self.deep:
            self.left = DlaTree(levels - 1, cin, cout, stride)
            self.right = DlaTree(levels - 1, cout, cout, 1, extra + cout)
        else:
            self.left = Residual(basic_body(cin, cout, stride), cin, cout, stride)
            self.right = Residual(basic_body(cout, cout, 1), cout, cout, 1)
            self.root = ConvBN(2 * cout + extra, cout)

    def forward(self, x: Tensor, leaves: tuple[Tensor, ...] = ()) -> Tensor:
        left = self.left(x)
        if self.deep:
            return self.right(left, (*leaves, left))
        return self.root(torch.cat([self.right(left), left, *leaves], 1))


class DlaStage(nn.Module):
    """A tree whose root also sees the pooled input of the stage."""

    def __init__(self, levels: int, cin: int, cout: int):
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2)
        self.tree = DlaTree(levels, cin, cout, 2, extra=cin)

    def forward(self, x: Tensor) -> Tensor:
        return self.tree(x, (self.pool(x),))


def dla34(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    a, b, c, d, e, f = (scaled(16 * 2**i, width) for i in range(6))
    return nn.Sequential(
        ConvBN(3, a, 7),
        ConvBN(a, a, 3),
        ConvBN(a, b, 3, 2),
        DlaTree(1, b, c, 2),
        DlaStage(2, c, d),
        DlaStage(2, d, e),
        DlaStage(1, e, f),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(f, num_classes, 1),
        nn.Flatten(),
    )
