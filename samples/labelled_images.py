"""The demo's images: scikit-learn's handwritten digits in clutter, or those of a folder.

`digits` and `folder` return a training set, a test set and the names of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional


@dataclass
class LabelledImages:
    """Images [N, channels, size, size], float32 of about unit variance, and classes [N], int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def resized(self, size: int) -> LabelledImages:
        """The same images at `size` × `size`."""
        images = functional.interpolate(self.images, size=size, mode="bilinear", antialias=True)
        return LabelledImages(images.contiguous(), self.labels)


def digits(size: int, count: int = 6000) -> tuple[LabelledImages, LabelledImages, list[str]]:
    """`count` training and 1,000 test images, and the names of the classes.

    Each image shows one of scikit-learn's 1,797 scanned digits (8×8 pixels), enlarged, rotated and
    placed at random between pieces of other digits, under noise. Test images show other scans than
    training images.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = torch.randperm(len(scans.images))
    images = torch.tensor(scans.images, dtype=torch.float32)[order, None] / 16
    labels = torch.tensor(scans.target)[order]
    cut = len(order) * 3 // 4
    train = _in_clutter(images[:cut], labels[:cut], count, size)
    test = _in_clutter(images[cut:], labels[cut:], 1000, size)
    return train, test, [str(name) for name in scans.target_names]


def folder(path: Path, size: int) -> tuple[LabelledImages, LabelledImages, list[str]]:
    """The images under `path`, one sub-folder per class: four of five for training."""
    from PIL import Image, UnidentifiedImageError

    classes = sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
    if len(classes) < 2:
        raise SystemExit(f"{path}: needs one sub-folder of images per class, at least two")
    pixel_arrays, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted(each for each in (path / name).iterdir() if each.is_file()):
            try:
                with Image.open(file) as image:
                    pixels = bytearray(image.convert("RGB").resize((size, size)).tobytes())
            except UnidentifiedImageError:
                raise SystemExit(f"{file}: is not an image; take it out of the folder") from None
            pixel_arrays.append(torch.frombuffer(pixels, dtype=torch.uint8).view(size, size, 3))
            labels.append(label)
        if labels.count(label) < 2:
            raise SystemExit(f"{path / name}: holds fewer than two images")
    images = torch.stack(pixel_arrays).permute(0, 3, 1, 2).float()
    images = (images - images.mean()) / images.std().clamp(min=1)
    order = torch.randperm(len(labels))
    cut = len(labels) * 4 // 5
    classes_of = torch.tensor(labels)
    train, test = (
        LabelledImages(images[rows], classes_of[rows]) for rows in (order[:cut], order[cut:])
    )
    return train, test, classes


def _in_clutter(scans: torch.Tensor, labels: torch.Tensor, count: int, size: int) -> LabelledImages:
    """`count` random scans with their labels, each with four pieces of other scans and noise."""
    chosen = torch.randint(len(scans), (count,))
    canvas = _placed(scans[chosen], size, zoom=_between(0.42, 0.6), shift=0.35)
    for _ in range(4):
        pieces = scans[torch.randint(len(scans), (count,))].clone()
        pieces[:, :, :, torch.randint(3, 5, ()).item() :] = 0
        canvas = torch.maximum(canvas, _placed(pieces, size, zoom=_between(0.3, 0.45), shift=0.9))
    canvas += 0.25 * torch.randn_like(canvas)
    return LabelledImages((canvas - canvas.mean()) / canvas.std(), labels[chosen])


def _placed(
    scans: torch.Tensor, size: int, zoom: Callable[[int], torch.Tensor], shift: float
) -> torch.Tensor:
    """Each scan rotated by up to 30°, `zoom` times the canvas' size, up to `shift` off centre."""
    count = len(scans)
    angle = _between(-math.pi / 6, math.pi / 6)(count)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    matrix = rotation / zoom(count)[:, None, None]
    offset = matrix @ _between(-shift, shift)(2 * count).view(count, 2, 1)
    grid = functional.affine_grid(
        torch.cat([matrix, offset], 2), [count, 1, size, size], align_corners=False
    )
    return functional.grid_sample(scans, grid, align_corners=False)


def _between(low: float, high: float) -> Callable[[int], torch.Tensor]:
    """A function that draws so many numbers uniformly from [low, high)."""
    return lambda count: low + (high - low) * torch.rand(count)
