"""Batches of images for `graphscale train`, at the current image size.

In: the files of a folder (`FolderBatches`) or tensors (`TensorBatches`). Out: batches of images
float32 (N, C, H, W) and labels int64 (N) on the network's device.

Every random choice is drawn from a generator seeded by (seed, epoch, image), so a training that was
interrupted, or has another number of worker processes, sees the same images. Worker processes share
the size: after growth they decode at the new size without a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graphscale.core.errors import GraphScaleError
from graphscale.core.requirements import missing_package
from graphscale.training.image_folder import open_image
from graphscale.training.image_size import SharedImageSize, resize_batch

# Torchvision's transforms that change colours and shapes, after a crop and a mirroring.
_TORCHVISION = {"trivial-augment": "TrivialAugmentWide", "rand-augment": "RandAugment"}
AUGMENTATIONS = ("crop-flip", "crop", *_TORCHVISION, "none")


@dataclass(frozen=True)
class Normalization:
    """Turns 8-bit values into the network's input: (value / 255 - mean) / deviation per channel."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images: uint8 (N, C, H, W) -> float32 of the same shape, on their device."""
        shape = (1, -1, 1, 1)
        scale = 1 / (255 * torch.tensor(self.deviation, device=images.device)).view(shape)
        shift = (torch.tensor(self.mean) / torch.tensor(self.deviation)).to(images.device)
        return images.float() * scale - shift.view(shape)


class FolderImages(torch.utils.data.Dataset):
    """A data set: image i as a uint8 tensor (C, H, W) of the current size, with its label.

    For training, a random part of the image is cut out (`smallest_share` to 100 % of its area,
    aspect 3/4 to 4/3, as for ImageNet since Inception) and mirrored with probability 1/2; then
    comes the transform of torchvision.transforms.v2 that the augmentation names, if it names one.
    For validation it is the middle, 7/8 of the shorter side.

    Raises:
        GraphScaleError: there is no such augmentation, or it needs torchvision, which is missing.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        channels: int,
        size: SharedImageSize,
        augmentation: str,
        seed: int,
        smallest_share: float = 0.25,
    ) -> None:
        self._transform = None
        if augmentation != "middle":
            self._transform = torchvision_transform(augmentation)
        self.files = list(files)
        self.channels = channels
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self.smallest_share = smallest_share

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: tuple[int, int]) -> tuple[torch.Tensor, int]:
        """The image and label for an (epoch, index) of `ResumableOrder`."""
        from PIL import Image, ImageOps

        epoch, index = place
        path, label = self.files[index]
        height, width = self.size.size
        image = open_image(path, self.channels, 2 * max(height, width))
        random = np.random.default_rng((self.seed, epoch, index))
        if self.augmentation == "middle":
            box = _middle(image.size, width / height)
        elif self.augmentation == "none":
            box = _middle(image.size, width / height, share=1.0)
        else:
            box = _random_part(image.size, width / height, self.smallest_share, random)
        # reducing_gap lets Pillow first reduce by a whole factor, which is faster and as good.
        image = image.resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=3.0)
        if self.augmentation not in ("middle", "none", "crop") and random.random() < 0.5:
            image = ImageOps.mirror(image)
        if self._transform is not None:
            with torch.random.fork_rng(devices=[]):  # the transform draws from torch's generator
                torch.manual_seed(int(random.integers(2**63)))
                image = self._transform(image)
        array = np.asarray(image).reshape(height, width, self.channels).transpose(2, 0, 1)
        return torch.from_numpy(array.copy()), label  # Pillow's own memory is not writable


def torchvision_transform(augmentation: str) -> Callable | None:
    """Torchvision's part of an augmentation, Pillow image -> Pillow image; None if it has none.

    Raises:
        GraphScaleError: there is no such augmentation, or it needs torchvision, which is missing.
    """
    if augmentation not in AUGMENTATIONS:
        raise GraphScaleError(
            f"unknown augmentation {augmentation!r}; use one of {', '.join(AUGMENTATIONS)}"
        )
    if augmentation not in _TORCHVISION:
        return None
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise missing_package(error, f"the augmentation {augmentation!r}") from None
    except RuntimeError as error:  # its operators are of another build of torch
        raise GraphScaleError(
            f"the augmentation {augmentation!r} needs torchvision, whose build does not fit "
            f"torch's ({' '.join(str(error).split())[:80]}); install both from one index"
        ) from None
    return getattr(v2, _TORCHVISION[augmentation])()


def _middle(size: tuple[int, int], aspect: float, share: float = 0.875) -> tuple[float, ...]:
    """The box (left, top, right, bottom) of this aspect in the middle of an image.

    Its sides are `share` of those of the largest such box.
    """
    width, height = size
    across = min(width, height * aspect) * share
    down = across / aspect
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _random_part(
    size: tuple[int, int], aspect: float, smallest: float, random: np.random.Generator
) -> tuple[float, ...]:
    """A random box (left, top, right, bottom) inside an image of this size.

    Its area is at least `smallest` of the image's; its aspect is 3/4 to 4/3 times `aspect`. If ten
    draws do not fit into the image, it is the largest box in the middle.
    """
    width, height = size
    for _ in range(10):
        area = width * height * random.uniform(smallest, 1.0)
        ratio = aspect * np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = random.uniform(0, width - across), random.uniform(0, height - down)
            return left, top, left + across, top + down
    return _middle(size, aspect, share=1.0)


class ResumableOrder(torch.utils.data.Sampler):
    """A sampler: (epoch, index) for every image, in a new random order in each epoch.

    Args:
        count: Number of images.
        seed: For the orders.
        shuffle: With False the order is that of the images.
        batch: Images in a batch of all ranks together; images that fill no batch are left out.
        share: (rank, ranks): of each batch every `ranks`-th image, from the number `rank` on.

    Attributes:
        epoch: The epoch whose order is drawn; set it before iterating.
        start: Number of images to skip, which were used before an interruption.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        shuffle: bool = True,
        batch: int = 1,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.batch = batch
        self.share = share
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
        else:
            order = list(range(self.count))
        return ((self.epoch, order[place]) for place in self._places())

    def __len__(self) -> int:
        return len(self._places())

    def _places(self) -> list[int]:
        """This rank's places in the order."""
        rank, ranks = self.share
        end = self.count // self.batch * self.batch
        return [p for p in range(self.start, end) if p % self.batch % ranks == rank]


class FolderBatches:
    """Batches of a folder's images, decoded and augmented by worker processes.

    Args:
        train, validation: (file, label) for each image.
        channels: 1 or 3.
        batch: Images in a batch.
        augmentation: One of `AUGMENTATIONS`.
        normalization: Mean and deviation of the channels.
        workers: Processes that decode; 0 decodes in this one.
        device: Where the network is.
        seed: For the order and all random choices.
        share: (rank, ranks): this process's share of each batch and of the validation images.
    """

    def __init__(
        self,
        train: Sequence[tuple[Path, int]],
        validation: Sequence[tuple[Path, int]],
        *,
        channels: int,
        batch: int,
        augmentation: str,
        normalization: Normalization,
        workers: int = 0,
        device: str | torch.device = "cpu",
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if len(train) < batch:
            raise GraphScaleError(
                f"{len(train)} training images do not fill a batch of {batch}; give a smaller "
                "--batch or more images"
            )
        rank, ranks = share
        if batch < ranks:
            raise GraphScaleError(
                f"--batch {batch} has fewer images than there are ranks, {ranks}; give the size of "
                "all ranks' images together"
            )
        self.size = SharedImageSize(1)
        self.normalization = normalization
        self.device = torch.device(device)
        self._order = ResumableOrder(len(train), seed, batch=batch, share=share)
        self._batch = batch
        own = len(range(rank, batch, ranks))
        shown = FolderImages(train, channels, self.size, augmentation, seed)
        held = FolderImages(validation, channels, self.size, "middle", seed)
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        options |= {"pin_memory": self.device.type == "cuda"}
        self._training = torch.utils.data.DataLoader(
            shown, own, sampler=self._order, drop_last=True, **options
        )
        # As one batch, which is shared out image by image: every image is counted once.
        count = len(validation)
        in_order = ResumableOrder(count, seed, shuffle=False, batch=max(count, 1), share=share)
        self._validation = torch.utils.data.DataLoader(held, own, sampler=in_order, **options)

    @property
    def batches_per_epoch(self) -> int:
        """Number of full batches; the remaining images of an epoch's order are left out."""
        return self._order.count // self._batch

    def training(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of an epoch from the batch `start` on."""
        self._order.epoch, self._order.start = epoch, start * self._batch
        return map(self._ready, self._training)

    def validation(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of the validation images."""
        return map(self._ready, self._validation)

    def _ready(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = (each.to(self.device, non_blocking=True) for each in batch)
        return self.normalization(images), labels


class TensorBatches:
    """Batches of images in memory; smaller sizes are made on the device, with antialiasing.

    Args:
        train, validation: (images, labels): float32 (N, C, H, W) of the target's size, and
            int64 (N).
        batch: Images in a batch.
        device: Where the network is.
        seed: For the order.
    """

    def __init__(
        self,
        train: tuple[torch.Tensor, torch.Tensor],
        validation: tuple[torch.Tensor, torch.Tensor],
        *,
        batch: int,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        self.size = SharedImageSize(train[0].shape[2:])
        self.device = torch.device(device)
        self._train, self._validation = train, validation
        self._batch = batch
        self._order = ResumableOrder(len(train[1]), seed)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self._order.count // self._batch

    def training(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of an epoch from the batch `start` on."""
        self._order.epoch, self._order.start = epoch, 0
        rows = torch.tensor([index for _, index in self._order])
        images, labels = self._train
        for index in range(start, self.batches_per_epoch):
            chosen = rows[index * self._batch : (index + 1) * self._batch]
            yield self._ready(images[chosen], labels[chosen])

    def validation(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of the validation images."""
        images, labels = self._validation
        for some, theirs in zip(images.split(self._batch), labels.split(self._batch)):
            yield self._ready(some, theirs)

    def _ready(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        resized = resize_batch(images.to(self.device), self.size.size)
        return resized, labels.to(self.device)
