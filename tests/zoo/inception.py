"""GoogLeNet and the Inception networks."""

import torch
from torch import Tensor, nn

from .blocks import Classifier, ConvBN, scaled


class Branches(nn.Module):
    """Concatenates what parallel branches make of one input."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def conv_relu(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return chain(nn.Conv2d(cin, cout, kernel, stride, kernel // 2), nn.ReLU())


# 1×1 | 1×1, 3×3 | 1×1, 5×5 | pool, 1×1 (arXiv 1409.4842, Table 1); None: a pool between stages
GOOGLENET = [
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
]


def googlenet(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Inception v1 without BatchNorm, pools that round up: 224→112→56→28→14→7."""
    c1, cin = scaled(64, width), scaled(192, width)
    layers: list[nn.Module] = [
        conv_relu(3, c1, 7, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        conv_relu(c1, c1),
        conv_relu(c1, cin, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    for row in GOOGLENET:
        if row is None:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            continue
        a, b1, b2, c1, c2, d = (scaled(n, width) for n in row)
        layers.append(
            Branches(
                conv_relu(cin, a),
                chain(conv_relu(cin, b1), conv_relu(b1, b2, 3)),
                chain(conv_relu(cin, c1), conv_relu(c1, c2, 5)),
                chain(nn.MaxPool2d(3, 1, 1), conv_relu(cin, d)),
            )
        )
        cin = a + b2 + c2 + d
    return nn.Sequential(
        *layers, nn.AvgPool2d(7), nn.Flatten(), nn.Dropout(0.4), nn.Linear(cin, num_classes)
    )


# 1×1 | 1×1, 3×3 | 1×1, 3×3, 3×3 | pool projection (arXiv 1502.03167, Figure 5);
# no 1×1: stride 2 and the pool passes through
BN_INCEPTION = [
    (64, 64, 64, 64, 96, 32, "avg"),
    (64, 64, 96, 64, 96, 64, "avg"),
    (0, 128, 160, 64, 96, 0, "max"),
    (224, 64, 96, 96, 128, 128, "avg"),
    (192, 96, 128, 96, 128, 128, "avg"),
    (160, 128, 160, 128, 160, 96, "avg"),
    (96, 128, 192, 160, 192, 96, "avg"),
    (0, 128, 192, 192, 256, 0, "max"),
    (352, 192, 320, 160, 224, 128, "avg"),
    (352, 192, 320, 192, 224, 128, "max"),
]


def inception_v2(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """BN-Inception."""
    c1, cin = scaled(64, width), scaled(192, width)
    layers: list[nn.Module] = [
        ConvBN(3, c1, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        ConvBN(c1, c1),
        ConvBN(c1, cin, 3),
        nn.MaxPool2d(3, 2, 1),
    ]
    for row in BN_INCEPTION:
        a, b1, b2, c1, c2, d = (scaled(n, width) if n else 0 for n in row[:6])
        stride = 1 if a else 2
        pool = nn.AvgPool2d(3, 1, 1) if row[6] == "avg" else nn.MaxPool2d(3, stride, 1)
        layers.append(
            Branches(
                *([ConvBN(cin, a)] if a else []),
                chain(ConvBN(cin, b1), ConvBN(b1, b2, 3, stride)),
                chain(ConvBN(cin, c1), ConvBN(c1, c2, 3), ConvBN(c2, c2, 3, stride)),
                chain(pool, ConvBN(cin, d)) if d else pool,
            )
        )
        cin = a + b2 + c2 + (d or cin)
    return nn.Sequential(*layers, Classifier(cin, num_classes))


def inception_v3(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Inception v3 (arXiv 1512.00567): 299→149→147→73→71→35→17→8, kernels 1×7, 7×1, 1×3, 3×1."""

    def s(n: int) -> int:
        return scaled(n, width)

    layers: list[nn.Module] = [
        ConvBN(3, s(32), 3, 2, 0),
        ConvBN(s(32), s(32), 3, 1, 0),
        ConvBN(s(32), s(64), 3),
        nn.MaxPool2d(3, 2),
        ConvBN(s(64), s(80)),
        ConvBN(s(80), s(192), 3, 1, 0),
        nn.MaxPool2d(3, 2),
    ]
    cin = s(192)
    for pooled in (32, 64, 64):
        layers.append(
            Branches(
                ConvBN(cin, s(64)),
                chain(ConvBN(cin, s(48)), ConvBN(s(48), s(64), 5)),
                chain(ConvBN(cin, s(64)), ConvBN(s(64), s(96), 3), ConvBN(s(96), s(96), 3)),
                chain(nn.AvgPool2d(3, 1, 1), ConvBN(cin, s(pooled))),
            )
        )
        cin = 2 * s(64) + s(96) + s(pooled)
    layers.append(
        Branches(
            ConvBN(cin, s(384), 3, 2, 0),
            chain(ConvBN(cin, s(64)), ConvBN(s(64), s(96), 3), ConvBN(s(96), s(96), 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        )
    )
    cin += s(384) + s(96)
    out = s(192)
    for c in (s(128), s(160), s(160), s(192)):
        layers.append(
            Branches(
                ConvBN(cin, out),
                chain(ConvBN(cin, c), ConvBN(c, c, (1, 7)), ConvBN(c, out, (7, 1))),
                chain(
                    ConvBN(cin, c),
                    ConvBN(c, c, (7, 1)),
                    ConvBN(c, c, (1, 7)),
                    ConvBN(c, c, (7, 1)),
                    ConvBN(c, out, (1, 7)),
                ),
                chain(nn.AvgPool2d(3, 1, 1), ConvBN(cin, out)),
            )
        )
        cin = 4 * out
    layers.append(
        Branches(
            chain(ConvBN(cin, out), ConvBN(out, s(320), 3, 2, 0)),
            chain(
                ConvBN(cin, out),
                ConvBN(out, out, (1, 7)),
                ConvBN(out, out, (7, 1)),
                ConvBN(out, out, 3, 2, 0),
            ),
            nn.MaxPool2d(3, 2),
        )
    )
    cin += s(320) + out

    def fan(c: int) -> Branches:
        return Branches(ConvBN(c, s(384), (1, 3)), ConvBN(c, s(384), (3, 1)))

    for _ in range(2):
        layers.append(
            Branches(
                ConvBN(cin, s(320)),
                chain(ConvBN(cin, s(384)), fan(s(384))),
                chain(ConvBN(cin, s(448)), ConvBN(s(448), s(384), 3), fan(s(384))),
                chain(nn.AvgPool2d(3, 1, 1), ConvBN(cin, out)),
            )
        )
        cin = s(320) + 4 * s(384) + out
    return nn.Sequential(*layers, Classifier(cin, num_classes))


def inception_v4(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Inception v4 (arXiv 1602.07261), its branching stem included."""

    def s(n: int) -> int:
        return scaled(n, width)

    layers: list[nn.Module] = [
        ConvBN(3, s(32), 3, 2, 0),
        ConvBN(s(32), s(32), 3, 1, 0),
        ConvBN(s(32), s(64), 3),
        Branches(nn.MaxPool2d(3, 2), ConvBN(s(64), s(96), 3, 2, 0)),
        Branches(
            chain(ConvBN(s(64) + s(96), s(64)), ConvBN(s(64), s(96), 3, 1, 0)),
            chain(
                ConvBN(s(64) + s(96), s(64)),
                ConvBN(s(64), s(64), (1, 7)),
                ConvBN(s(64), s(64), (7, 1)),
                ConvBN(s(64), s(96), 3, 1, 0),
            ),
        ),
        Branches(ConvBN(2 * s(96), s(192), 3, 2, 0), nn.MaxPool2d(3, 2)),
    ]
    a = s(96)
    cin = 2 * a + s(192)
    for _ in range(4):
        layers.append(
            Branches(
                chain(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvBN(cin, a)),
                ConvBN(cin, a),
                chain(ConvBN(cin, s(64)), ConvBN(s(64), a, 3)),
                chain(ConvBN(cin, s(64)), ConvBN(s(64), a, 3), ConvBN(a, a, 3)),
            )
        )
        cin = 4 * a
    layers.append(
        Branches(
            nn.MaxPool2d(3, 2),
            ConvBN(cin, s(384), 3, 2, 0),
            chain(ConvBN(cin, s(192)), ConvBN(s(192), s(224), 3), ConvBN(s(224), s(256), 3, 2, 0)),
        )
    )
    cin += s(384) + s(256)
    for _ in range(7):
        layers.append(
            Branches(
                chain(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvBN(cin, s(128))),
                ConvBN(cin, s(384)),
                chain(
                    ConvBN(cin, s(192)),
                    ConvBN(s(192), s(224), (1, 7)),
                    ConvBN(s(224), s(256), (7, 1)),
                ),
                chain(
                    ConvBN(cin, s(192)),
                    ConvBN(s(192), s(192), (1, 7)),
                    ConvBN(s(192), s(224), (7, 1)),
                    ConvBN(s(224), s(224), (1, 7)),
                    ConvBN(s(224), s(256), (7, 1)),
                ),
            )
        )
        cin = s(128) + s(384) + 2 * s(256)
    layers.append(
        Branches(
            nn.MaxPool2d(3, 2),
            chain(ConvBN(cin, s(192)), ConvBN(s(192), s(192), 3, 2, 0)),
            chain(
                ConvBN(cin, s(256)),
                ConvBN(s(256), s(256), (1, 7)),
                ConvBN(s(256), s(320), (7, 1)),
                ConvBN(s(320), s(320), 3, 2, 0),
            ),
        )
    )
    cin += s(192) + s(320)
    e = s(256)

    def fan(c: int) -> Branches:
        return Branches(ConvBN(c, e, (1, 3)), ConvBN(c, e, (3, 1)))

    for _ in range(3):
        layers.append(
            Branches(
                chain(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvBN(cin, e)),
                ConvBN(cin, e),
                chain(ConvBN(cin, s(384)), fan(s(384))),
                chain(
                    ConvBN(cin, s(384)),
                    ConvBN(s(384), s(448), (1, 3)),
                    ConvBN(s(448), s(512), (3, 1)),
                    fan(s(512)),
                ),
            )
        )
        cin = 6 * e
    return nn.Sequential(*layers, nn.Dropout(0.2), Classifier(cin, num_classes))
