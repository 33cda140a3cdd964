"""Networks that answer with a map: U-Net and FCN."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .blocks import ConvBN, scaled


def double_conv(cin: int, cout: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBN(cin, cout, 3, padding=padding), ConvBN(cout, cout, 3, padding=padding)
    )


class UNet(nn.Module):
    """U-Net (arXiv 1505.04597).

    Up-sampling is 'transpose' (ConvTranspose 2×2) or 'bilinear' (Resize, then a 1×1 convolution).
    With padding 0, as published, the skipped maps are cropped at their centre.
    """

    def __init__(self, width: float, num_classes: int, upsampling: str, padding: int):
        super().__init__()
        channels = [scaled(64 * 2**i, width) for i in range(5)]
        self.upsampling = upsampling
        self.down = nn.ModuleList(
            double_conv(cin, cout, padding) for cin, cout in zip([3, *channels], channels)
        )
        self.pool = nn.MaxPool2d(2, 2)
        self.lift, self.up = nn.ModuleList(), nn.ModuleList()
        for low, high in zip(channels[:0:-1], channels[-2::-1]):
            transposed = upsampling == "transpose"
            self.lift.append(
                nn.ConvTranspose2d(low, high, 2, 2) if transposed else nn.Conv2d(low, high, 1)
            )
            self.up.append(double_conv(2 * high, high, padding))
        self.predict = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for stage in self.down[:-1]:
            x = stage(x)
            skipped.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for lift, up in zip(self.lift, self.up):
            skip = skipped.pop()
            if self.upsampling == "bilinear":
                x = interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = lift(x)
            top, left = ((a - b) // 2 for a, b in zip(skip.shape[2:], x.shape[2:]))
            if top or left:
                skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = up(torch.cat([skip, x], 1))
        return self.predict(x)


def unet(
    width: float = 1.0, num_classes: int = 21, upsampling: str = "transpose", padding: int = 1
) -> nn.Module:
    return UNet(width, num_classes, upsampling, padding)


class FCN(nn.Module):
    """FCN-8s on a VGG-like body (arXiv 1411.4038): three scales of scores, summed upwards.

    Up-sampling is 'transpose' (kernels 4 and 16) or 'resize' (bilinear, to the sizes asked for).
    """

    def __init__(self, width: float, num_classes: int, upsampling: str):
        super().__init__()
        channels = [scaled(n, width) for n in (64, 128, 256, 512, 512)]
        self.upsampling = upsampling
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(cin, cout, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(cout, cout, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2, 2),
            )
            for cin, cout in zip([3, *channels], channels)
        )
        hidden = scaled(1024, width)
        self.head = nn.Sequential(
            nn.Conv2d(channels[-1], hidden, 7, padding=3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(hidden, num_classes, 1),
        )
        self.score = nn.ModuleList(nn.Conv2d(channels[i], num_classes, 1) for i in (3, 2))
        if upsampling == "transpose":
            shape = (num_classes, num_classes)
            self.doubling = nn.ModuleList(nn.ConvTranspose2d(*shape, 4, 2, 1) for _ in range(2))
            self.last = nn.ConvTranspose2d(*shape, 16, 8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        y = self.head(x)
        for step, skip in enumerate((maps[3], maps[2])):
            if self.upsampling == "transpose":
                y = self.doubling[step](y)
            else:
                y = interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = y + self.score[step](skip)
        if self.upsampling == "transpose":
            return self.last(y)
        return interpolate(y, size=size, mode="bilinear", align_corners=False)


def fcn(width: float = 1.0, num_classes: int = 21, upsampling: str = "transpose") -> nn.Module:
    return FCN(width, num_classes, upsampling)
