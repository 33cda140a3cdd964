"""Chains of convolutions and pools with a fully-connected head: OverFeat, AlexNet, VGG."""

from torch import nn

from .blocks import scaled


def head(features: int, hidden: tuple[int, int], classes: int) -> list[nn.Module]:
    first, second = hidden
    return [
        nn.Flatten(),
        nn.Linear(features, first),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(second, classes),
    ]


def overfeat_fast(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """The fast model of OverFeat (arXiv 1312.6229): 231→56→28→24→12→12→12→12→6."""
    a, b, c, d = (scaled(n, width) for n in (96, 256, 512, 1024))
    return nn.Sequential(
        nn.Conv2d(3, a, 11, stride=4),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(a, b, 5),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(d, d, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        *head(d * 36, (scaled(3072, width), scaled(4096, width)), num_classes),
    )


def alexnet(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """The one-tower AlexNet (arXiv 1404.5997): 224→55→27→13→6."""
    a, b, c, d = (scaled(n, width) for n in (64, 192, 384, 256))
    hidden = scaled(4096, width)
    return nn.Sequential(
        nn.Conv2d(3, a, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(d, d, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        *head(d * 36, (hidden, hidden), num_classes),
    )


def alexnet_lrn(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """AlexNet as first published: grouped convolutions and local response normalisation."""
    a, b, c, d = (scaled(n, width) for n in (96, 256, 384, 256))
    hidden = scaled(4096, width)
    return nn.Sequential(
        nn.Conv2d(3, a, 11, stride=4),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, c, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        *head(d * 36, (hidden, hidden), num_classes),
    )


VGG_STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, norm: bool, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """VGG (arXiv 1409.1556), with or without BatchNorm."""
    layers: list[nn.Module] = []
    cin = 3
    for repeats, channels in zip(VGG_STAGES[depth], (64, 128, 256, 512, 512)):
        cout = scaled(channels, width)
        for _ in range(repeats):
            layers.append(nn.Conv2d(cin, cout, 3, padding=1))
            layers += [nn.BatchNorm2d(cout)] if norm else []
            layers.append(nn.ReLU())
            cin = cout
        layers.append(nn.MaxPool2d(2, 2))
    hidden = scaled(4096, width)
    return nn.Sequential(*layers, *head(cin * 49, (hidden, hidden), num_classes))
