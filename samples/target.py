"""The target: a small CNN with kernels of 7, 5 and 3 and a fully-connected interface."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

SIZE = 64  # height and width of the target's images
# How it is shrunk. Kernels of 3×3 stay: as 2×2, which the paper's table makes of them, they cost
# more accuracy than their time is worth, and smaller images make up for the time.
PRETRAIN_SIZE = 40
KERNELS = {3: 3}


def target_network(channels: int, classes: int) -> nn.Module:
    """The network: images [N, channels, 64, 64] to class scores [N, classes]."""
    return nn.Sequential(
        *_block(channels, 16, kernel=7, stride=2),
        *_block(16, 32, kernel=5),
        nn.MaxPool2d(2),
        *_block(32, 64, kernel=3),
        *_block(64, 64, kernel=3),
        nn.MaxPool2d(2),
        *_block(64, 64, kernel=3),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, classes),
    )


def export(network: nn.Module, path: Path, channels: int) -> None:
    """Write `network` as an ONNX file for training, with any batch size."""
    torch.onnx.export(
        network.train(),  # an export in evaluation mode has no Dropout
        (torch.zeros(2, channels, SIZE, SIZE),),
        path,
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        optimize=False,  # else BatchNorm is folded into the convolutions
        verbose=False,
    )


def _block(channels: int, filters: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
