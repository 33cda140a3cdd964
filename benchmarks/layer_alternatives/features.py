"""Cases of the layers over features: FeatureLPPooling, Maxout, CrossMapNormalization."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphscale.layers import CrossMapNormalization, FeatureLPPooling, Maxout

from .case import Alternative, Function, make_case, one_node, text_of

IMAGES = (16, 192, 28, 28)


def feature_lp_pooling(shape, width, stride, power):
    features = (shape[1] - width) // stride + 1
    alternatives = {
        "lp_pool": Alternative(
            Function(
                (lambda x: functional.lp_pool1d(x.abs()[:, None], power, width, stride)[:, 0])
                if len(shape) == 2
                else lambda x: functional.lp_pool3d(
                    x.abs()[:, None], power, (width, 1, 1), (stride, 1, 1)
                )[:, 0]
            )
        ),
        "unfold and vector_norm": Alternative(
            Function(lambda x: torch.linalg.vector_norm(x.unfold(1, width, stride), power, -1))
        ),
    }
    if width == stride and shape[1] % width == 0:
        split = (shape[0], features, width, *shape[2:])
        root = torch.sqrt if power == 2 else lambda s: s.pow(1 / power)
        alternatives["view, power, sum, root"] = Alternative(
            Function(
                lambda x: root((x if power == 2 else x.abs()).reshape(split).pow(power).sum(2))
            )
        )
        alternatives["view and vector_norm"] = Alternative(
            Function(lambda x: torch.linalg.vector_norm(x.reshape(split), power, 2))
        )
    return FeatureLPPooling(width, stride, power), (torch.rand(shape) + 0.1,), alternatives


def maxout(shape, width):
    split = (shape[0], shape[1] // width, width, *shape[2:])
    if len(shape) == 2:
        alternatives = {
            "max_pool1d": Alternative(Function(lambda x: functional.max_pool1d(x, width))),
            "view and amax": Alternative(Function(lambda x: x.reshape(split).amax(2))),
        }
        return Maxout(width), (torch.randn(shape),), alternatives
    alternatives = {
        "view and amax": Alternative(Function(lambda x: x.reshape(split).amax(2))),
        "view and max": Alternative(Function(lambda x: x.reshape(split).max(2).values)),
        "max_pool3d": Alternative(
            Function(lambda x: functional.max_pool3d(x[:, None], (width, 1, 1))[:, 0]),
            one_node(
                "MaxPool",
                (torch.empty(shape[0], 1, *shape[1:]),),
                kernel_shape=[width, 1, 1],
                strides=[width, 1, 1],
            ),
            lambda x: (x[:, None],),
        ),
        "AdaptiveMaxPool3d": Alternative(
            Function(
                lambda x: functional.adaptive_max_pool3d(
                    x[:, None], (shape[1] // width, *shape[2:])
                )[:, 0]
            )
        ),
    }
    alternatives["max_pool3d"].module.function = lambda x: functional.max_pool3d(x, (width, 1, 1))
    return Maxout(width), (torch.randn(shape),), alternatives


def cross_map_normalization(shape, size):
    scale, power = 0.1, 0.75
    x = torch.randn(shape)

    def box(x):
        squares = functional.pad(x.square()[:, None], (0, 0, 0, 0, size // 2, size // 2))
        sums = functional.avg_pool3d(squares, (size, 1, 1), 1, divisor_override=1)[:, 0]
        return x * (1 + scale * sums).pow(-power)

    lrn = one_node("LRN", (x,), alpha=scale * size, beta=power, bias=1.0, size=size)
    return (
        CrossMapNormalization(size, scale, power),
        (x,),
        {
            "LocalResponseNorm": Alternative(nn.LocalResponseNorm(size, scale * size, power), lrn),
            "squares, avg_pool3d, power": Alternative(Function(box)),
        },
    )


CASES = [
    *(
        make_case(
            "FeatureLPPooling",
            feature_lp_pooling,
            f"{text_of(shape)}, width {width}, stride {stride}, power {power}",
            *(shape, width, stride, power),
        )
        for shape, width, stride, power in [
            (IMAGES, 4, 4, 2.0),
            (IMAGES, 4, 2, 2.0),
            (IMAGES, 4, 4, 3.0),
            (IMAGES, 4, 4, 1.5),
            ((256, 4096), 4, 4, 2.0),
        ]
    ),
    *(
        make_case("Maxout", maxout, f"{text_of(shape)}, width {width}", shape, width)
        for shape, width in [(IMAGES, 2), (IMAGES, 4), ((256, 4096), 4)]
    ),
    make_case(
        "CrossMapNormalization", cross_map_normalization, f"{text_of(IMAGES)}, size 5", IMAGES, 5
    ),
]
