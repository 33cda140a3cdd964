"""Batches: the same random choices wherever they are drawn, pixels that are those of the file."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graphscale import GraphScaleError
from graphscale.training.image_batches import (
    FolderBatches,
    FolderImages,
    Normalization,
    ResumableOrder,
    TensorBatches,
)
from graphscale.training.image_size import SharedImageSize, resize_batch


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[tuple[Path, int]]:
    """Eleven images of 24×16 pixels; the red value is the column times ten."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for index in range(11):
        pixels = np.zeros((16, 24, 3), np.uint8)
        pixels[..., 0], pixels[..., 2] = np.arange(24) * 10, index
        Image.fromarray(pixels).save(folder / f"{index}.png")
        found.append((folder / f"{index}.png", index))
    return found


def images(files: list, augmentation: str, size: object = (16, 24), **options) -> FolderImages:
    return FolderImages(files, 3, SharedImageSize(size), augmentation, 0, **options)


def test_normalization_is_minus_the_mean_over_the_deviation() -> None:
    normalization = Normalization((0.5, 0.25), (0.2, 0.1))
    given = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    wanted = torch.tensor([[[[(0 - 0.5) / 0.2]], [[(1 - 0.25) / 0.1]]]])
    torch.testing.assert_close(normalization(given), wanted)


def test_none_is_the_image_itself(files: list) -> None:
    found, label = images(files, "none")[0, 3]
    assert (found.dtype, label) == (torch.uint8, 3)
    assert torch.equal(found, torch.from_numpy(np.array(Image.open(files[3][0]))).permute(2, 0, 1))


def test_the_middle_is_seven_eighths_of_the_shorter_side(files: list) -> None:
    """14×14 of 16 pixels, columns 5 to 18 of 24: the box is not resized, so pixels stay."""
    found, _ = images(files, "middle", 14)[0, 0]
    assert found.shape == (3, 14, 14)
    assert found[0, 0].tolist() == [10 * column for column in range(5, 19)]


def test_crops_lie_inside_the_image_and_some_are_mirrored(files: list) -> None:
    data = images(files, "crop-flip", 8)
    rising = 0
    for epoch in range(40):
        row = data[epoch, 0][0][0, 4].int()
        steps = row.diff()
        assert bool((steps >= 0).all() or (steps <= 0).all())
        rising += bool((steps >= 0).all())
        assert 0 <= row.min() <= row.max() <= 230
    assert 8 < rising < 32  # one half of 40, within four deviations
    whole = images(files, "crop", 8, smallest_share=1.0)
    assert all(whole[epoch, 0][0][0, 4].diff().min() >= 0 for epoch in range(5))


def test_choices_depend_on_seed_epoch_and_image_alone(files: list) -> None:
    one, other = images(files, "crop-flip", 8), images(files[:4], "crop-flip", 8)
    assert torch.equal(one[5, 3][0], other[5, 3][0])
    assert not torch.equal(one[5, 3][0], one[6, 3][0])


def test_grey_and_a_changed_size(files: list) -> None:
    size = SharedImageSize(8)
    data = FolderImages(files, 1, size, "none", 0)
    assert data[0, 0][0].shape == (1, 8, 8)
    size.set((6, 10))
    assert data[0, 0][0].shape == (1, 6, 10)


def test_an_unknown_augmentation(files: list) -> None:
    with pytest.raises(
        GraphScaleError, match=r"'mirror'; use one of crop-flip, crop, trivial-augment"
    ):
        images(files, "mirror")


class Drawing:
    """Stands for a transform of torchvision, which draws from torch's generator."""

    def __call__(self, image: Image.Image) -> Image.Image:
        grey = int(torch.randint(256, ()))
        return Image.new(image.mode, image.size, (grey,) * len(image.getbands()))


def test_torchvisions_choices_depend_on_seed_epoch_and_image_alone(
    files: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2 = types.ModuleType("torchvision.transforms.v2")
    v2.TrivialAugmentWide = Drawing
    transforms = types.ModuleType("torchvision.transforms")
    transforms.v2 = v2
    monkeypatch.setitem(sys.modules, "torchvision.transforms", transforms)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    data = images(files, "trivial-augment", 8)
    before = torch.random.get_rng_state()
    greys = [int(data[epoch, index][0].unique()) for epoch in range(4) for index in range(5)]
    assert len(set(greys)) > 15
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    again = images(files, "trivial-augment", 8)
    assert int(again[2, 3][0].unique()) == greys[2 * 5 + 3]


def test_torchvision_is_missing(files: list, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision.transforms"):  # other tests put stand-ins there
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GraphScaleError, match=r"'rand-augment' needs torchvision.*pip install"):
        images(files, "rand-augment")


def test_orders_are_permutations_that_can_be_resumed() -> None:
    order = ResumableOrder(20, seed=3)
    first = list(order)
    assert sorted(index for _, index in first) == list(range(20))
    order.epoch = 1
    second = list(order)
    assert [epoch for epoch, _ in second] == [1] * 20
    assert [index for _, index in second] != [index for _, index in first]
    order.start = 15
    assert list(order) == second[15:]
    assert len(order) == 5
    assert list(ResumableOrder(3, 0, shuffle=False)) == [(0, 0), (0, 1), (0, 2)]


def folder_batches(files: list, workers: int = 0, batch: int = 4) -> FolderBatches:
    made = FolderBatches(
        files,
        files[:5],
        channels=3,
        batch=batch,
        augmentation="crop-flip",
        normalization=Normalization((0.0,) * 3, (1.0,) * 3),
        workers=workers,
    )
    made.size.set(8)
    return made


def test_a_folders_batches_are_full_and_those_of_validation_are_all(files: list) -> None:
    batches = folder_batches(files)
    assert batches.batches_per_epoch == 2
    found = list(batches.training(0, 0))
    assert [(x.shape, x.dtype, y.dtype) for x, y in found] == [
        ((4, 3, 8, 8), torch.float32, torch.int64)
    ] * 2
    for x, y in found:
        torch.testing.assert_close(255 * x[:, 2, 0, 0], y.float())  # blue is the label
    assert torch.cat([y for _, y in batches.validation()]).tolist() == [0, 1, 2, 3, 4]


def test_going_on_in_the_middle_of_an_epoch(files: list) -> None:
    whole = list(folder_batches(files).training(7, 0))
    ((x, y),) = folder_batches(files, workers=1).training(7, 1)
    assert torch.equal(x, whole[1][0])
    assert torch.equal(y, whole[1][1])


def test_too_few_images(files: list) -> None:
    with pytest.raises(GraphScaleError, match=r"11 training images do not fill a batch of 12"):
        folder_batches(files, batch=12)


def test_tensors_are_resized_and_shuffled_alike() -> None:
    data = torch.rand(10, 1, 8, 8), torch.arange(10)
    batches = TensorBatches(data, (data[0][:3], data[1][:3]), batch=4)
    found = list(batches.training(2, 0))
    assert batches.batches_per_epoch == len(found) == 2
    for x, y in found:
        assert torch.equal(x, data[0][y])
    ((x, y),) = batches.training(2, 1)
    assert torch.equal(y, found[1][1])
    batches.size.set((6, 4))
    ((x, y),) = batches.validation()
    assert torch.equal(x, resize_batch(data[0][:3], (6, 4)))
    assert y.tolist() == [0, 1, 2]
