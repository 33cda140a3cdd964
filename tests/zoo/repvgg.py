"""Re-parametrised convolutions: RepVGG."""

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, scaled


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
