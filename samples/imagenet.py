"""Train a network on ImageNet, or any such folder, in one process or split over many.

    python samples/imagenet.py FOLDER
    torchrun --nproc-per-node 8 samples/imagenet.py FOLDER --one-bit

FOLDER holds train/ and val/, each with a sub-folder of images per class. One flag chooses the
container:

    --data-parallel    each rank has images of its own; gradients are averaged (default)
    --one-bit          the same with gradients in one bit per element
    --one-bit-sgd      as fbcunn did: AdaGrad on averaged gradients, one bit per element both ways
    --model-parallel   data-parallel convolutions; the classifier is split by its outputs
    --pipeline         the layers are split by stage; all ranks have the same images

After each epoch a checkpoint of the whole network is written. With --resume any number of ranks
goes on from it, in the same kind of container.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, distributed, nn
from torch.distributed import HashStore
from torch.utils.data import DataLoader, Dataset

from graphscale.distributed import (
    DataParallel,
    ModelParallel,
    OneBitDataParallel,
    PipelineParallel,
    get_full_state_dict,
    set_full_state_dict,
)

CONTAINERS = ("data-parallel", "one-bit", "one-bit-sgd", "model-parallel", "pipeline")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pictures(Dataset):
    """Pictures of a folder with a sub-folder per class: [3, size, size] and the class."""

    def __init__(self, folder: Path, size: int, training: bool) -> None:
        self.size, self.training = size, training
        self.classes = sorted(each.name for each in folder.iterdir() if each.is_dir())
        self.files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in sorted((folder / name).iterdir())
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        # In training a random part of half the area or more, mirrored or not; else the middle.
        share = 0.7 + 0.3 * torch.rand(1).item() if self.training else 1.0
        side = share * min(picture.size)
        left, top = (
            (length - side) * (torch.rand(1).item() if self.training else 0.5)
            for length in picture.size
        )
        box = (left, top, left + side, top + side)
        picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / DEVIATION
        x = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
        return (x.flip(2) if self.training and torch.rand(1) < 0.5 else x), label


class Order:
    """The batches of an epoch, shuffled: of each batch the share of one rank."""

    def __init__(self, count: int, batch: int, share: tuple[int, int]) -> None:
        self.count, self.batch, self.share = count, batch, share
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.epoch)
        every = torch.randperm(self.count, generator=generator).tolist()
        rank, ranks = self.share
        for start in range(0, len(self) * self.batch, self.batch):
            yield every[start : start + self.batch][rank::ranks]


def layers(classes: int, width: int) -> tuple[nn.Sequential, nn.Sequential]:
    """AlexNet's kind of network: convolutions, and a classifier with most of the weights."""
    features = nn.Sequential(
        *(nn.Conv2d(3, width, 11, 4, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 3 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        nn.Flatten(),
    )
    classifier = nn.Sequential(
        *(nn.Linear(64 * width, 64 * width), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(64 * width, 64 * width), nn.ReLU(), nn.Linear(64 * width, classes)),
    )
    return features, classifier


def contained(
    options: argparse.Namespace, features: nn.Sequential, classifier: nn.Sequential
) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Tensor, Tensor], Tensor]]:
    """The network in its container, its optimizer, and a function that takes a training step."""
    whole = nn.Sequential(features, classifier)
    container, rate = options.container, options.rate
    network: nn.Module
    if container == "model-parallel":
        network = nn.Sequential(DataParallel(features), ModelParallel(classifier, batch="split"))
    elif container == "pipeline":
        network = PipelineParallel(nn.Sequential(*features, *classifier), nn.CrossEntropyLoss())
    elif container == "one-bit-sgd":
        network = OneBitDataParallel(whole, lr=rate / 10, momentum=0.9)
    elif container == "one-bit":
        network = DataParallel(whole, gradient="onebit", warm_up_steps=options.warm_up)
    else:
        network = DataParallel(whole)
    optimizer = (
        network.optimizer
        if isinstance(network, OneBitDataParallel)
        else torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=1e-4)
    )

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        if isinstance(network, PipelineParallel):
            loss = network.step(images, labels)
        else:
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
        optimizer.step()
        return loss.detach()

    return network, optimizer, step


@torch.no_grad()
def accuracy(network: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """The share of pictures of all ranks whose class is found."""
    network.eval()
    counts = torch.zeros(2, device=device)
    for images, labels in batches:
        hits = network(images.to(device)).argmax(1) == labels.to(device)
        counts += torch.tensor([hits.sum(), len(labels)], device=device)
    network.train()
    distributed.all_reduce(counts)
    return (counts[0] / counts[1]).item()


def save(
    file: Path, epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer, rank: int
) -> None:
    """Write the whole network, its optimizer's state and what one bit has left out so far."""
    own_state = isinstance(network, OneBitDataParallel)  # of each rank
    weights, moments = get_full_state_dict(network, None if own_state else optimizer)
    one_bit = getattr(network, "one_bit", None)
    residuals = None if one_bit is None else one_bit.gathered_state_dict()
    if rank == 0:
        torch.save(
            {"epoch": epoch, "network": weights, "optimizer": moments, "one_bit": residuals}, file
        )


def load(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what `save` wrote; returns the number of epochs done."""
    saved = torch.load(file, weights_only=True)
    own_state = isinstance(network, OneBitDataParallel)
    given = None if own_state else optimizer
    set_full_state_dict(network, given, saved["network"], saved["optimizer"])
    if saved["one_bit"] is not None:
        network.one_bit.load_state_dict(saved["one_bit"])
    return saved["epoch"]


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, and return the accuracy on the pictures in val/."""
    options = _options(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    alone = {} if "RANK" in os.environ else {"store": HashStore(), "rank": 0, "world_size": 1}
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", **alone)
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    share = (0, 1) if options.container == "pipeline" else (rank, ranks)

    torch.manual_seed(0)
    train = Pictures(options.data / "train", options.size, training=True)
    test = Pictures(options.data / "val", options.size, training=False)
    if options.batch % ranks or options.batch > len(train) or len(test) < ranks:
        raise SystemExit(
            f"--batch {options.batch} cannot be shared by {ranks} ranks from {len(train)} pictures "
            f"in train/ and {len(test)} in val/; give a multiple of the ranks, and not more than "
            "there are pictures"
        )
    features, classifier = layers(len(train.classes), options.width)
    network, optimizer, step = contained(options, features.to(device), classifier.to(device))
    first = load(options.checkpoint, network, optimizer) if options.resume else 0
    order = Order(len(train), options.batch, share)
    train_batches = DataLoader(train, batch_sampler=order, num_workers=options.workers)
    # As in training, pictures that fill no whole batch are left out.
    test_batch = min(options.batch, len(test) // ranks * ranks)
    test_order = Order(len(test), test_batch, share)
    test_batches = DataLoader(test, batch_sampler=test_order, num_workers=options.workers)
    found = 0.0
    torch.manual_seed(rank)  # each rank has parts of the pictures and dropped features of its own
    for epoch in range(first, options.epochs):
        order.epoch = epoch
        for images, labels in train_batches:
            loss = step(images.to(device), labels.to(device))
        found = accuracy(network, test_batches, device)
        save(options.checkpoint, epoch + 1, network, optimizer, rank)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy {found:.1%}", flush=True)
    # The last collective's tensors are released by a thread of gloo's that needs Python's lock. If
    # the group is destroyed meanwhile, torch waits for that thread and keeps the lock, for ever.
    distributed.barrier()
    distributed.destroy_process_group()
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="FOLDER")
    flags = parser.add_mutually_exclusive_group()
    for name in CONTAINERS:
        flags.add_argument(f"--{name}", dest="container", action="store_const", const=name)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256, help="pictures of all ranks together")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument(
        "--warm-up", type=int, default=1000, help="steps with dense gradients before --one-bit"
    )
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--width", type=int, default=64, help="of the first convolution")
    parser.add_argument("--workers", type=int, default=4, help="processes that read pictures")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.set_defaults(container="data-parallel")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
