"""Read a folder of images, one sub-folder per class, and check it before the training starts.

In: a path. Two layouts are known: FOLDER/train/CLASS/* with FOLDER/val/CLASS/*; or FOLDER/CLASS/*,
of which about every fifth file is kept for validation, chosen by a hash of its name, so that the
choice never changes.

Out: the files with their labels (`read_folder`), and statistics for the training (`check_images`).
The check decodes every file once, so that a file that cannot be used is reported at the start and
not after an hour.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphscale.core.errors import GraphScaleError

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"),
        *(".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"),
    )
)
_VALIDATION_SHARE = 5  # every fifth image where the folder has no val/
_CHECKED_SIZE = 64  # pixels; statistics are taken of images reduced to about this size


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        root: The folder.
        classes: The names of the classes, sorted; a label is an index into this tuple.
        train, validation: (file, label) for each image, class by class, sorted by file.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    validation: tuple[tuple[Path, int], ...]


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics over all images.

    Attributes:
        mean, deviation: Of each channel, with values between 0 and 1.
        grey: Number of images without colour.
        smallest: The smallest height or width of any image, in pixels.
        pixels: Number of pixels of the reduced images.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    grey: int
    smallest: int
    pixels: int = 0


@dataclass
class _Sums:
    """Sums over the pixels of some images, per channel, or the reason why one cannot be used."""

    pixels: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(3))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(3))
    grey: int = 0
    smallest: int = 1 << 30
    failure: str | None = None


class _UnknownRangeError(Exception):
    """The values of an image do not tell how bright the brightest is."""


def read_folder(root: str | Path) -> ImageFolder:
    """List the images under `root`.

    Raises:
        GraphScaleError: there is no such folder, it has fewer than two classes or an empty class,
            or train/ and val/ have different classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise GraphScaleError(f"{root}: is not a folder; give one with a sub-folder per class")
    if (root / "train").is_dir():
        classes, train = _read_classes(root / "train")
        part = next((root / n for n in ("val", "validation") if (root / n).is_dir()), None)
        if part is None:
            raise GraphScaleError(
                f"{root}: has train/ but no val/; put the images to validate on there, or give "
                f"{root / 'train'} to have every fifth image kept for validation"
            )
        others, validation = _read_classes(part)
        if others != classes:
            odd = sorted(set(classes) ^ set(others))[0]
            raise GraphScaleError(
                f"{root}: the class {odd!r} is in only one of train/ and {part.name}/; "
                "both need the same classes"
            )
        return ImageFolder(root, classes, train, validation)
    classes, files = _read_classes(root)
    held = [(file, label) for file, label in files if _is_held_out(file.relative_to(root))]
    kept = [(file, label) for file, label in files if not _is_held_out(file.relative_to(root))]
    for label, name in enumerate(classes):
        if not any(other == label for _, other in kept):
            raise GraphScaleError(f"{root / name}: holds too few images; give at least ten")
    if not held:
        raise GraphScaleError(
            f"{root}: holds too few images to keep a fifth for validation; add some, or sort them "
            "into train/ and val/"
        )
    return ImageFolder(root, classes, tuple(kept), tuple(held))


def _read_classes(folder: Path) -> tuple[tuple[str, ...], tuple[tuple[Path, int], ...]]:
    try:
        return _list_classes(folder)
    except OSError as error:
        raise GraphScaleError(
            f"{error.filename}: cannot be listed ({error.strerror}); make it readable or remove it"
        ) from None


def _list_classes(folder: Path) -> tuple[tuple[str, ...], tuple[tuple[Path, int], ...]]:
    names = sorted(
        each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )
    if len(names) < 2:
        raise GraphScaleError(
            f"{folder}: needs one sub-folder of images per class, at least two of them"
        )
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        found = sorted(
            each
            for each in (folder / name).rglob("*")
            if each.suffix.lower() in SUFFIXES and each.is_file()
        )
        if not found:
            raise GraphScaleError(
                f"{folder / name}: holds no image ({', '.join(sorted(SUFFIXES))}); "
                "add images or remove the folder"
            )
        files += [(file, label) for file in found]
    return tuple(names), tuple(files)


def _is_held_out(file: Path) -> bool:
    digest = hashlib.sha256(os.fsencode(file.as_posix())).digest()
    return digest[0] % _VALIDATION_SHARE == 0


def open_image(path: Path, channels: int, min_size: int | None = None):
    """Open an image file as a Pillow image of 1 or 3 channels and 8 bits.

    The image is rotated as its EXIF data says. Grey images become colour ones, or the other way
    round; 16-bit values and floating-point ones from 0 to 1 are scaled to 8 bits; transparent
    pixels are blended with white.

    Args:
        path: The file.
        channels: 1 or 3.
        min_size: If given, a JPEG may be decoded at a fraction of its size as long as both sides
            have at least so many pixels, which is several times faster.

    Raises:
        GraphScaleError: the file is no image, is damaged, has 32-bit values of unknown range, or is
            larger than Pillow's limit against decompression bombs; names it.
    """
    return _open(path, channels, min_size)[0]


def _open(path: Path, channels: int, min_size: int | None):
    """The image of `open_image`, and the smaller side of the file's own."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                side = min(image.size)
                if min_size is not None:
                    image.draft(None, (min_size, min_size))
                image.load()
                if image.mode == "I" and image.format == "TIFF":  # other formats: 16 bits
                    raise _UnknownRangeError("it has 32 bits per value; save it with 8 or 16 bits")
                turned = ImageOps.exif_transpose(image)
                return _with_channels(turned, channels), side
    except _UnknownRangeError as error:
        raise GraphScaleError(f"{path}: cannot be trained on: {error}") from None
    except UnidentifiedImageError:
        reason = "it is not an image that Pillow knows"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        reason = f"it is damaged or unreadable ({' '.join(str(error).split())[:120]})"
    raise GraphScaleError(f"{path}: cannot be trained on: {reason}; repair or remove the file")


def _with_channels(image, channels: int):
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        array = np.nan_to_num(np.asarray(image, np.float64))
        full = 1.0 if image.mode == "F" else 65535.0
        if image.mode == "F" and array.max() > 1:
            raise _UnknownRangeError(
                "its floating-point values go beyond 0 to 1; save it with 8 or 16 bits"
            )
        image = Image.fromarray(np.clip(array * (255.0 / full), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("L" if channels == 1 else "RGB")


def check_images(
    files: Sequence[tuple[Path, int]],
    channels: int,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImageStatistics:
    """Decode every file once.

    Args:
        files: (file, label) for each image.
        channels: 1 or 3.
        workers: Number of processes.
        progress: Is called with (files done, files in all).

    Raises:
        GraphScaleError: a file cannot be used; names it and says why.
    """
    paths = [file for file, _ in files]
    parts = [paths[i : i + 64] for i in range(0, len(paths), 64)]
    total = _Sums(sums=np.zeros(channels), squares=np.zeros(channels))
    done = 0
    if workers > 1 and len(parts) > 1:
        with ProcessPoolExecutor(workers) as pool:
            for part, found in zip(parts, pool.map(_check, parts, [channels] * len(parts))):
                done += len(part)
                _add(total, found)
                progress(done, len(paths))
    else:
        for part in parts:
            done += len(part)
            _add(total, _check(part, channels))
            progress(done, len(paths))
    mean = total.sums / max(total.pixels, 1)
    deviation = np.sqrt(np.maximum(total.squares / max(total.pixels, 1) - mean**2, 1e-6))
    return ImageStatistics(
        tuple(mean.tolist()), tuple(deviation.tolist()), total.grey, total.smallest, total.pixels
    )


def joined_statistics(parts: Sequence[ImageStatistics]) -> ImageStatistics:
    """The statistics over all images, of which each part has seen some."""
    if len(parts) == 1:
        return parts[0]
    pixels = sum(part.pixels for part in parts)
    mean = sum(part.pixels * np.array(part.mean) for part in parts) / pixels
    squares = sum(
        part.pixels * (np.array(part.deviation) ** 2 + np.array(part.mean) ** 2) for part in parts
    )
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return ImageStatistics(
        tuple(mean.tolist()),
        tuple(deviation.tolist()),
        sum(part.grey for part in parts),
        min(part.smallest for part in parts),
        pixels,
    )


def _check(paths: Sequence[Path], channels: int) -> _Sums:
    found = _Sums(sums=np.zeros(channels), squares=np.zeros(channels))
    for path in paths:
        try:
            image, side = _open(path, channels, _CHECKED_SIZE)
        except GraphScaleError as error:
            found.failure = str(error)
            return found
        found.smallest = min(found.smallest, side)
        image.thumbnail((_CHECKED_SIZE, _CHECKED_SIZE))
        array = np.asarray(image, np.float64).reshape(-1, channels) / 255
        found.pixels += len(array)
        found.sums += array.sum(0)
        found.squares += (array**2).sum(0)
        found.grey += channels == 3 and bool((array == array[:, :1]).all())
    return found


def _add(total: _Sums, part: _Sums) -> None:
    if part.failure is not None:
        raise GraphScaleError(part.failure)
    total.pixels += part.pixels
    total.sums += part.sums
    total.squares += part.squares
    total.grey += part.grey
    total.smallest = min(total.smallest, part.smallest)
