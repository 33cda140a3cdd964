"""The data set: capital letters of the fonts on this machine, small, rotated, in clutter.

26 classes, each letter 14 to 26 pixels high. Fonts are split by family, so that test images show
families that no training image shows. The same seed gives the same images on the same set of fonts.

Debian's font packages make a good set: README.md beside this file lists them.
"""

from __future__ import annotations

import hashlib
import string
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont
from scenes import scenes

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
    def glyph(random: np.random.Generator) -> tuple[int, Image.Image]:
        family = families[random.integers(len(families))]
        font = family[random.integers(len(family))]
        label = int(random.integers(len(CLASSES)))
        return label, font[label]

    return scenes(glyph, count, seed, whole=(14, 26), pieces=(10, 24))
