"""Batches, inputs and workers follow the current image size."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import graphscale
from graphscale.training import ResizeInputs, SharedImageSize, resize_batch


def test_as_pillow_resizes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, 64, 48)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels[0, 0]).resize((36, 40), Image.Resampling.BILINEAR))
    found = resize_batch(torch.from_numpy(pixels), (40, 36))
    assert found.dtype is torch.uint8
    assert np.abs(found[0, 0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    images = torch.rand(2, 3, 16, 16).to(dtype)
    found = resize_batch(images, 12)
    assert found.dtype is dtype
    torch.testing.assert_close(found.double(), resize_batch(images.double(), 12), atol=1e-2, rtol=0)


def test_labels_stay_labels() -> None:
    labels = torch.randint(0, 5, (2, 1, 16, 16)) * 100
    found = resize_batch(labels, 12, "nearest")
    assert found.dtype is labels.dtype
    assert set(found.flatten().tolist()) <= set(labels.flatten().tolist())


def test_nothing_to_do_and_memory_format() -> None:
    images = torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last)
    assert resize_batch(images, 16) is images
    assert resize_batch(images, 12).is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(graphscale.GraphScaleError, match=r"not a tensor of shape \[3, 16, 16\]"):
        resize_batch(images[0], 12)


def test_inputs_of_a_module() -> None:
    module = nn.Identity()
    module.register_forward_pre_hook(ResizeInputs((12, 10)))
    images = torch.rand(2, 3, 16, 16)
    for each in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(each(images), resize_batch(images, (12, 10)))
    assert module(torch.ones(2, 5)).shape == (2, 5)


class Sizes(Dataset):
    """A data set whose items are the size that the worker process sees."""

    def __init__(self, size: SharedImageSize) -> None:
        self.size = size

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([self.size.height, self.size.width])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_see_the_size(start: str) -> None:
    size = SharedImageSize(48)
    loader = DataLoader(
        Sizes(size), 2, num_workers=1, persistent_workers=True, multiprocessing_context=start
    )
    assert torch.cat(list(loader)).tolist() == [[48, 48]] * 4
    size.set((56, 64))
    assert torch.cat(list(loader)).tolist() == [[56, 64]] * 4


def test_copies_of_a_shared_size() -> None:
    size = SharedImageSize((48, 40))
    assert copy.deepcopy(size) is size
    assert pickle.loads(pickle.dumps(size)).size == (48, 40)
