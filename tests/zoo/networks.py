"""The list of networks: name, how to build it, its input."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from . import (
    compact,
    inception,
    large_kernels,
    mobile,
    multiscale,
    plain,
    repvgg,
    residual,
    segmentation,
)
from .blocks import randomise


@dataclass(frozen=True)
class Entry:
    """How to build a network, `build(width=, num_classes=)`, and its input's height and width."""

    build: Callable[..., torch.nn.Module]
    input_size: int
    num_classes: int = 1000


def _inverted(rows: list[tuple], last: int, activation: type, **options: float) -> Callable:
    return partial(mobile.inverted_residual_net, rows, last, activation, **options)


SiLU, ReLU, ReLU6 = torch.nn.SiLU, torch.nn.ReLU, torch.nn.ReLU6

NETWORKS: dict[str, Entry] = {
    "overfeat_fast": Entry(plain.overfeat_fast, 231),
    "alexnet": Entry(plain.alexnet, 224),
    "alexnet_lrn": Entry(plain.alexnet_lrn, 227),
    **{
        f"vgg{depth}{'_bn' if norm else ''}": Entry(partial(plain.vgg, depth, norm), 224)
        for depth in (11, 16, 19)
        for norm in (False, True)
    },
    **{f"resnet{d}": Entry(partial(residual.resnet, d), 224) for d in (18, 34, 50, 101, 152)},
    "seresnet50": Entry(partial(residual.resnet, 50, squeeze=True), 224),
    "resnext50": Entry(residual.resnext50, 224),
    "res2net50": Entry(residual.res2net50, 224),
    "regnet_x": Entry(partial(residual.regnet, "x"), 224),
    "regnet_y": Entry(partial(residual.regnet, "y"), 224),
    "googlenet": Entry(inception.googlenet, 224),
    "inception_v2": Entry(inception.inception_v2, 224),
    "inception_v3": Entry(inception.inception_v3, 299),
    "inception_v4": Entry(inception.inception_v4, 299),
    "densenet121": Entry(partial(compact.densenet, (6, 12, 24, 16)), 224),
    "densenet201": Entry(partial(compact.densenet, (6, 12, 48, 32)), 224),
    "squeezenet1_0": Entry(partial(compact.squeezenet, "1_0"), 224),
    "squeezenet1_1": Entry(partial(compact.squeezenet, "1_1"), 224),
    "shufflenet_v1": Entry(compact.shufflenet_v1, 224),
    "shufflenet_v2": Entry(compact.shufflenet_v2, 224),
    "xception": Entry(compact.xception, 299),
    "mobilenet_v1": Entry(mobile.mobilenet_v1, 224),
    "mobilenet_v2": Entry(_inverted(mobile.MOBILENET_V2, 1280, ReLU6), 224),
    "mobilenet_v3_small": Entry(partial(mobile.mobilenet_v3, "small"), 224),
    "mobilenet_v3_large": Entry(partial(mobile.mobilenet_v3, "large"), 224),
    "mobilenet_v4": Entry(mobile.mobilenet_v4, 224),
    "mnasnet": Entry(_inverted(mobile.MNASNET_A1, 1280, ReLU), 224),
    "efficientnet_b0": Entry(_inverted(mobile.EFFICIENTNET, 1280, SiLU), 224),
    "efficientnet_b1": Entry(_inverted(mobile.EFFICIENTNET, 1280, SiLU, depth=1.1), 240),
    "mixnet": Entry(_inverted(mobile.MIXNET, 1536, SiLU), 224),
    "ghostnet": Entry(mobile.ghostnet, 224),
    "convnext_tiny": Entry(large_kernels.convnext_tiny, 224),
    "slak_tiny": Entry(large_kernels.slak_tiny, 224),
    "replknet_train": Entry(large_kernels.replknet, 224),
    "replknet_merged": Entry(partial(large_kernels.replknet, merged=True), 224),
    "unireplknet_train": Entry(large_kernels.unireplknet_tiny, 224),
    "unireplknet_merged": Entry(partial(large_kernels.unireplknet_tiny, merged=True), 224),
    "repvgg_train": Entry(repvgg.repvgg, 224),
    "repvgg_fused": Entry(partial(repvgg.repvgg, fused=True), 224),
    "hrnet_w18": Entry(multiscale.hrnet_w18, 224),
    "fpn_scale": Entry(partial(multiscale.fpn, True), 224, 80),
    "fpn_size": Entry(partial(multiscale.fpn, False), 200, 80),
    "dla34": Entry(multiscale.dla34, 224),
    "unet_transpose": Entry(segmentation.unet, 256, 21),
    "unet_bilinear": Entry(partial(segmentation.unet, upsampling="bilinear"), 256, 21),
    "unet_valid": Entry(partial(segmentation.unet, padding=0), 284, 21),
    "fcn_transpose": Entry(segmentation.fcn, 224, 21),
    "fcn_resize": Entry(partial(segmentation.fcn, upsampling="resize"), 224, 21),
}


def build(name: str, width: float = 1.0, num_classes: int | None = None) -> torch.nn.Module:
    """The network in evaluation mode with random weights that keep activations in range."""
    entry = NETWORKS[name]
    torch.manual_seed(0)
    module = entry.build(width=width, num_classes=num_classes or entry.num_classes)
    example = torch.randn(2, 3, entry.input_size, entry.input_size)
    return randomise(module, example, seed=len(name))
