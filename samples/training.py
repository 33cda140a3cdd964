"""Plain supervised training, with a record of accuracy against training seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from labelled_images import LabelledImages
from torch.nn import functional

BATCH = 64


@dataclass
class Record:
    """Test accuracy after each epoch, and the seconds of training up to there."""

    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float, accuracy: float) -> None:
        """Note `seconds` more and the accuracy reached."""
        self.seconds.append(seconds + (self.seconds[-1] if self.seconds else 0.0))
        self.accuracy.append(accuracy)


def train(
    network: torch.nn.Module,
    data: LabelledImages,
    test: LabelledImages,
    rates: Sequence[float],
    record: Record,
) -> None:
    """One epoch of SGD with Nesterov momentum per learning rate; tests are not in the time."""
    network.to(memory_format=torch.channels_last)
    images = data.images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=rates[0], momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        started = time.perf_counter()
        network.train()
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = functional.cross_entropy(network(images[rows]), data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - started
        record.epoch_seconds.append(seconds)
        record.add(seconds, accuracy(network, test))
        print(
            f"  epoch {len(record.epoch_seconds):2}   rate {rate:<6g} {seconds:5.1f} s   "
            f"accuracy {record.accuracy[-1]:.1%}"
        )


@torch.no_grad()
def accuracy(network: torch.nn.Module, data: LabelledImages) -> float:
    """The fraction of images that the network gets right."""
    network.eval()
    hits = [
        (network(images).argmax(1) == labels).sum().item()
        for images, labels in zip(data.images.split(BATCH), data.labels.split(BATCH))
    ]
    return sum(hits) / len(data.labels)
