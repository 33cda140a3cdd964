"""Small pictures in clutter: 64×64 grey images that show one thing each, between pieces of others.

A thing is a grey picture on black. It stands near the image's middle, rotated by up to 25°, between
up to two pieces of other things, under noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

SIZE = 64


def scenes(
    draw: Callable[[np.random.Generator], tuple[int, Image.Image]],
    count: int,
    seed: int,
    *,
    whole: tuple[int, int],
    pieces: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (count, 1, 64, 64), labels int64 (count)) of what `draw` draws at random.

    `draw` returns a label and a picture. The longer side of the thing to recognise, and of what
    pieces are cut from, lies between the pixels of `whole` and `pieces`.
    """
    random = np.random.default_rng(seed)
    images = np.empty((count, 1, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)
    for index in range(count):
        canvas = np.zeros((SIZE, SIZE), np.float32)
        for _ in range(random.integers(0, 3)):
            _, mask = draw(random)
            width, height = mask.size
            cut = random.uniform(0.3, 0.6)  # a piece, which cannot be mistaken for the whole
            if random.random() < 0.5:
                mask = mask.crop((0, 0, max(1, int(width * cut)), height))
            else:
                mask = mask.crop((0, 0, width, max(1, int(height * cut))))
            place = random.uniform(0, SIZE, 2)
            _paste(canvas, mask, random.uniform(*pieces), random, place, random.uniform(0.3, 1.0))
        labels[index], mask = draw(random)
        place = random.uniform(0.35 * SIZE, 0.65 * SIZE, 2)
        height, ink = random.uniform(*whole), random.uniform(0.6, 1.0)
        _paste(canvas, mask, height, random, place, ink, clear=True)
        canvas = canvas * random.uniform(0.5, 1.0) + random.uniform(0, 0.3)
        canvas += random.normal(0, random.uniform(0.03, 0.08), canvas.shape)
        images[index, 0] = np.clip(canvas * 255, 0, 255)
    return images, labels


def _paste(
    canvas: np.ndarray,
    mask: Image.Image,
    height: float,
    random: np.random.Generator,
    place: np.ndarray,
    ink: float,
    clear: bool = False,
) -> None:
    """Draw a mask, `height` pixels high (its longer side), rotated by up to 25°, around `place`."""
    scale = height / max(mask.size)
    size = [max(2, round(side * scale)) for side in mask.size]
    small = mask.resize(size, Image.Resampling.BOX, reducing_gap=None)
    small = small.rotate(random.uniform(-25, 25), Image.Resampling.BILINEAR, expand=True)
    piece = np.asarray(small, np.float32) / 255
    top, left = (int(p - s / 2) for p, s in zip(place, piece.shape))
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + piece.shape[0], SIZE), min(left + piece.shape[1], SIZE)
    if y0 >= y1 or x0 >= x1:
        return
    piece = piece[y0 - top : y1 - top, x0 - left : x1 - left]
    part = canvas[y0:y1, x0:x1]
    if clear:  # clutter behind the thing to recognise is darkened
        part *= 1 - 0.8 * (piece > 0.05)
    np.maximum(part, piece * ink, out=part)
