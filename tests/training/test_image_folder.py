"""Folders of images, good and bad."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphscale import GraphScaleError
from graphscale.training.image_folder import check_images, open_image, read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 images each."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(20):
            pixels = random.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_every_image_is_in_one_part(folder: Path) -> None:
    found = read_folder(folder)
    assert found.classes == ("cat", "dog")
    assert len(found.train) + len(found.validation) == 40
    assert not {file for file, _ in found.train} & {file for file, _ in found.validation}
    assert all(found.classes[label] == file.parent.name for file, label in found.train)
    assert read_folder(folder) == found


def test_train_and_val(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(3):
                (root / part / name / f"{index}.png").write_bytes(
                    (folder / name / f"{index}.png").read_bytes()
                )
    found = read_folder(root)
    assert len(found.train) == len(found.validation) == 6


def test_statistics_are_numpys(folder: Path) -> None:
    found = read_folder(folder)
    files = [*found.train, *found.validation]
    arrays = np.stack([np.asarray(Image.open(file)) for file, _ in files]) / 255
    statistics = check_images(files, 3)
    np.testing.assert_allclose(statistics.mean, arrays.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation, arrays.std((0, 1, 2)), rtol=1e-6)
    assert (statistics.grey, statistics.smallest) == (0, 12)
    assert check_images(files, 3, workers=2) == statistics


def test_empty_class_is_named(folder: Path) -> None:
    (folder / "eel").mkdir()
    with pytest.raises(GraphScaleError, match=r"eel: holds no image"):
        read_folder(folder)


def test_one_class_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    with pytest.raises(GraphScaleError, match="at least two"):
        read_folder(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_broken_image_is_named_at_the_start(folder: Path, damage: str) -> None:
    path = folder / "dog" / "7.png"
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "text": b"no image", "empty": b""}[damage]
    )
    found = read_folder(folder)
    with pytest.raises(GraphScaleError, match=r"dog/7\.png: cannot be trained on"):
        check_images([*found.train, *found.validation], 3, workers=2)


def test_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    Image.new("L", (200, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(GraphScaleError, match=r"huge\.png.*1,000 pixels"):
        open_image(path, 1)


def test_exif_turns_the_image(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(open_image(tmp_path / "turned.png", 3))
    assert turned.shape == (8, 4, 3)
    assert (turned[0, 3] == 255).all()


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    pixels = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    assert np.asarray(open_image(tmp_path / "deep.png", 1)).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([[0, 200]], np.float32), "floating-point values go beyond 0 to 1"),
        (np.array([[0, 200]], np.int32), "32 bits per value"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(GraphScaleError, match=rf"a\.tiff: cannot be trained on: .*{said}"):
        open_image(tmp_path / "a.tiff", 1)


def test_floating_point_values_from_0_to_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.2, 1]], np.float32)).save(tmp_path / "a.tiff")
    assert np.asarray(open_image(tmp_path / "a.tiff", 1)).tolist() == [[0, 51, 255]]


def test_the_smallest_side_is_the_files_own(tmp_path: Path) -> None:
    """JPEG is decoded at a fraction of its size."""
    Image.new("RGB", (800, 600)).save(tmp_path / "a.jpg")
    assert check_images([(tmp_path / "a.jpg", 0)], 3).smallest == 600


@pytest.mark.parametrize(
    ("mode", "channels"), [("CMYK", 3), ("L", 3), ("RGB", 1), ("P", 3), ("1", 3)]
)
def test_modes(tmp_path: Path, mode: str, channels: int) -> None:
    image = Image.new("RGB", (5, 5), "white").convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / f"image.{suffix}")
    found = open_image(tmp_path / f"image.{suffix}", channels)
    assert found.mode == ("L" if channels == 1 else "RGB")
    assert np.asarray(found).min() >= 253


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_become_black(tmp_path: Path) -> None:
    pixels = np.full((4, 4), 0.5, np.float32)
    pixels[0, 0] = np.nan
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    read = np.asarray(open_image(tmp_path / "a.tiff", 1))
    assert (read[0, 0], read[1, 1]) == (0, 127)


def test_names_that_are_not_utf8(folder: Path) -> None:
    os.rename(folder / "cat", os.fsencode(folder) + b"/\xff")
    found = read_folder(folder)
    assert found.classes == ("dog", os.fsdecode(b"\xff"))
    assert len(found.train) + len(found.validation) == 40


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (np.asarray(open_image(tmp_path / "clear.png", 3)) == 255).all()
