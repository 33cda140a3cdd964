"""Plain supervised training that records accuracy and training seconds.

`train` takes a network, images and a learning rate per epoch, changes the network's weights and
adds an entry per epoch to a `Record`.
"""

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
    """Test accuracy after each epoch, and the seconds of training since the start."""

    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float, accuracy: float) -> None:
        """Add an entry: `seconds` after the last one, the accuracy is `accuracy`."""
        self.seconds.append(seconds + (self.seconds[-1] if self.seconds else 0.0))
        self.accuracy.append(accuracy)


def train(
    network: torch.nn.Module,
    data: LabelledImages,
    test: LabelledImages,
    rates: Sequence[float],
    record: Record,
) -> None:
    """Train one epoch of SGD with Nesterov momentum per rate; testing is not in the seconds."""
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
    """The share of images whose class the network gets right."""
    network.eval()
    hits = [
        (network(images).argmax(1) == labels).sum().item()
        for images, labels in zip(data.images.split(BATCH), data.labels.split(BATCH))
    ]
    return sum(hits) / len(data.labels)
