"""The data set: capital letters of the fonts on this machine, small, rotated, in clutter.

26 classes. Each 64×64 grey image shows one letter, 14 to 26 pixels high, near its middle, between
up to two pieces of other letters, under noise. Fonts are split by family, so that test images
show families that no training image shows. The same seed gives the same images on the same set of
fonts.

Debian's font packages make a good set: README.md beside this file lists them.
"""

from __future__ import annotations

import hashlib
import string
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

SIZE = 64
CLASSES = string.ascii_uppercase
_RENDERED = 72  # pixels of the font's size; images are made smaller from it
_TEST_SHARE = 4  # one of so many families is for testing


def glyphs(train: int, test: int, seed: int = 0) -> tuple[tuple, tuple]:
    """(images uint8 (N, 1, 64, 64), labels int64 (N)) for training and for testing."""
    families = _families()
    names = sorted(families)
    tested = [name for name in names if _is_tested(name)]
    trained = [name for name in names if not _is_tested(name)]
    print(f"{len(trained)} font families to train on, {len(tested)} others to test on")
    return (
        _images([families[name] for name in trained], train, seed),
        _images([families[name] for name in tested], test, seed + 1),
    )


def _is_tested(family: str) -> bool:
    return hashlib.sha256(family.encode()).digest()[0] % _TEST_SHARE == 0


def _families() -> dict[str, list[list[Image.Image]]]:
    """Family -> its fonts, each as the masks of all letters."""
    families: dict[str, list] = defaultdict(list)
    files = sorted(
        path
        for path in Path("/usr/share/fonts").rglob("*")
        if path.suffix.lower() in (".ttf", ".otf")
    )
    for path in files:
        masks = _masks(path)
        if masks is not None:
            name, found = masks
            families[name.split(" ")[0]].append(found)  # 'Lato Black' is of the family Lato
    return families


def _masks(path: Path) -> tuple[str, list[Image.Image]] | None:
    """Name and glyph masks of a font that has all letters, no two alike; else None."""
    from fontTools.ttLib import TTFont

    try:
        known = TTFont(path, lazy=True, fontNumber=0).getBestCmap() or {}
        if not all(ord(character) in known for character in CLASSES):
            return None
        font = ImageFont.truetype(str(path), _RENDERED)
        masks = []
        for character in CLASSES:
            mask = font.getmask(character, mode="L")
            if min(mask.size) < 4 or max(mask.size) > 3 * _RENDERED:
                return None
            masks.append(Image.frombytes("L", mask.size, bytes(mask)))
    except Exception:  # FreeType or fontTools cannot read it: leave the font out
        return None
    if len({mask.tobytes() for mask in masks}) < len(CLASSES):
        return None
    return font.getname()[0] or path.stem, masks


def _images(families: list[list[list[Image.Image]]], count: int, seed: int) -> tuple:
    random = np.random.default_rng(seed)
    images = np.empty((count, 1, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)

    def glyph() -> tuple[int, Image.Image]:
        family = families[random.integers(len(families))]
        font = family[random.integers(len(family))]
        label = int(random.integers(len(CLASSES)))
        return label, font[label]

    for index in range(count):
        canvas = np.zeros((SIZE, SIZE), np.float32)
        for _ in range(random.integers(0, 3)):
            _, mask = glyph()
            width, height = mask.size
            cut = random.uniform(0.3, 0.6)  # a piece, which cannot be mistaken for the glyph
            if random.random() < 0.5:
                mask = mask.crop((0, 0, max(1, int(width * cut)), height))
            else:
                mask = mask.crop((0, 0, width, max(1, int(height * cut))))
            place = random.uniform(0, SIZE, 2)
            _paste(canvas, mask, random.uniform(10, 24), random, place, random.uniform(0.3, 1.0))
        labels[index], mask = glyph()
        place = random.uniform(0.35 * SIZE, 0.65 * SIZE, 2)
        _paste(
            canvas,
            mask,
            random.uniform(14, 26),
            random,
            place,
            random.uniform(0.6, 1.0),
            clear=True,
        )
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
    if clear:  # clutter behind the glyph to recognise is darkened
        part *= 1 - 0.8 * (piece > 0.05)
    np.maximum(part, piece * ink, out=part)
