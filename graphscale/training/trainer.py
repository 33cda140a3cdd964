"""The loop of `graphscale train`: shrink, train, grow in place, train on, by a recipe.

`Trainer.run` goes through the recipe's stages. Between two stages the network grows and the image
size that the data loaders share is set anew. After each epoch, and every few minutes, everything
that decides what comes next (weights, optimizer, random states, place in the epoch) is written; on
a CPU a training that was killed goes on bit for bit from there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from graphscale.core.errors import GraphScaleError
from graphscale.training.image_size import SharedImageSize
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.recipes import Recipe
from graphscale.training.run_folder import EpochRecord, RunFolder

_CHECKPOINT_SECONDS = 300  # the most that a killed training loses, an epoch's rest apart


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained; the defaults are those of `graphscale train`.

    Attributes:
        epochs: Of the whole training, all stages together.
        rate: Full height of the learning rate.
        schedule: How the rate decays.
        optimizer: 'sgd' (Nesterov momentum) or 'adamw'.
        momentum: Of SGD.
        weight_decay: Of all weights with more than one dimension.
        weight_decay_until: The epoch from which on there is none (the paper's 29 of 55), or None.
        label_smoothing: Of the cross entropy.
        precision: 'float32', 'bfloat16' or 'float16' (with a scaled loss).
        channels_last: Memory format of weights and images.
        compile: Whether torch.compile compiles each stage's network.
        seed: Of the order of the images and of every random choice.
    """

    epochs: int = 30
    rate: float = 0.1
    schedule: RateSchedule = RateSchedule()  # noqa: RUF009  frozen
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    weight_decay_until: int | None = None
    label_smoothing: float = 0.0
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise GraphScaleError(f"{self.epochs} epochs are no training; give at least one")
        if self.optimizer not in ("sgd", "adamw"):
            raise GraphScaleError(f"unknown optimizer {self.optimizer!r}; use sgd or adamw")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise GraphScaleError(
                f"unknown precision {self.precision!r}; use float32, bfloat16 or float16"
            )


class Networks(Protocol):
    """Where the networks of a training come from."""

    def size(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's images."""

    def first(self, stage: int) -> nn.Module:
        """A stage's network with the weights that a training starts from."""

    def grow(self, network: nn.Module, stage: int, optimizer: torch.optim.Optimizer) -> nn.Module:
        """The network of the stage after `stage`, with the weights of `network` carried over.

        Where it is the same object, `optimizer` goes on with it; else a new one is made.
        """


class Batches(Protocol):
    """Where the images come from."""

    size: SharedImageSize

    def training(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches (images, labels) of an epoch, from the batch `start` on, ready for the network.

        Images are float32 (N, C, H, W) on the network's device.
        """

    def validation(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of the validation images."""

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""


@dataclass
class Events:
    """What the loop tells a person, each a function that does nothing unless it is set."""

    started: Callable[[int, int, tuple[int, int]], None] = lambda stage, epoch, size: None
    stepped: Callable[[int, int, int], None] = lambda epoch, batch, batches: None
    finished: Callable[[EpochRecord], None] = lambda record: None


class Interrupted(Exception):
    """The training was stopped; a checkpoint is written."""


class Trainer:
    """One training.

    Args:
        networks, batches: Where networks and images come from.
        recipe: The stages.
        options: How each is trained.
        folder: Where checkpoints and logs are written; None writes nothing.
        device: Where the network is trained.
        events: What is told on the way.
    """

    def __init__(
        self,
        networks: Networks,
        batches: Batches,
        recipe: Recipe,
        options: TrainingOptions,
        folder: RunFolder | None = None,
        device: str | torch.device = "cpu",
        events: Events | None = None,
    ) -> None:
        self.networks = networks
        self.batches = batches
        self.recipe = recipe
        self.options = options
        self.folder = folder
        self.device = torch.device(device)
        self.events = events or Events()
        self.ends = recipe.ends(options.epochs, options.schedule.milestones(options.epochs))
        self.records: list[EpochRecord] = []
        self.stop = False  # set from a signal handler: the loop stops after the step at hand
        self._stage = 0
        self._place = (0, 0)  # the epoch and the batch in it that come next
        self._seconds = self._processor_seconds = 0.0
        self._epoch_sums = [0.0, 0.0, 0.0]  # loss, hits and images of the epoch so far
        self._after_growth: float | None = None
        self._best = -1.0
        self._saved_at = time.monotonic()
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=options.precision == "float16"
        )

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, checkpoint: dict[str, Any] | None = None) -> nn.Module:
        """Train from the start, or from a checkpoint; returns the trained target.

        Raises:
            Interrupted: `stop` was set; the checkpoint last.pt is written.
            GraphScaleError: the loss is no longer a finite number; says at which step.
        """
        seed_all(self.options.seed)
        if checkpoint is None:
            with self._timed():
                self._begin(self.networks.first(0), 0)
        else:
            self._restore(checkpoint)
        epoch, batch = self._place
        while epoch < self.options.epochs:
            while epoch >= self.ends[self._stage]:
                self._grow()
            if batch == 0 and epoch in (0, *self.ends):
                size = self.networks.size(self._stage)
                self.events.started(self._stage, epoch, size)
            self._epoch(epoch, batch)
            epoch, batch = self._place
        return self.network

    def _epoch(self, epoch: int, start: int) -> None:
        count = self.batches.batches_per_epoch
        self.network.train()
        batches = self.batches.training(epoch, start)
        for index in range(start, count):
            with self._timed():
                images, labels = next(batches)
                self._step(epoch + index / count, images, labels)
            self._place = (epoch, index + 1)
            self.events.stepped(epoch, index + 1, count)
            late = time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS
            if self.stop or (late and index + 1 < count):
                self._save("last.pt")
            if self.stop:
                raise Interrupted
        loss, accuracy = self._validate()
        summed_loss, hits, images = self._epoch_sums
        previous = self.records[-1].seconds if self.records else 0.0
        record = EpochRecord(
            epoch=epoch + 1,
            stage=self._stage,
            image_size=self.networks.size(self._stage)[0],
            rate=self._rate(epoch + 1 - 1e-6),
            train_loss=summed_loss / images,
            train_accuracy=hits / images,
            loss=loss,
            accuracy=accuracy,
            images_per_second=images / max(self._seconds - previous, 1e-9),
            seconds=self._seconds,
            processor_seconds=self._processor_seconds,
            straight_after_growth=self._after_growth,
        )
        self.records.append(record)
        self._after_growth = None
        self._epoch_sums = [0.0, 0.0, 0.0]
        self._place = (epoch + 1, 0)
        target = self.recipe.stages[self._stage].target
        if self.folder is not None:
            self.folder.log(self.records)
            if target and accuracy > self._best:
                self._best = accuracy
                self._save("best.pt")
            self._save("last.pt")
        self.events.finished(record)

    def _step(self, moment: float, images: torch.Tensor, labels: torch.Tensor) -> None:
        rate = self._rate(moment)
        decays = self.options.weight_decay_until
        for group in self._optimizer.param_groups:
            group["lr"] = rate
            if decays is not None and moment >= decays:
                group["weight_decay"] = 0.0
        images = images.contiguous(memory_format=self._format)
        with self._autocast():
            scores = self._call(images)
            loss = F.cross_entropy(
                scores.float(), labels, label_smoothing=self.options.label_smoothing
            )
        value = loss.item()
        if not np.isfinite(value):
            raise GraphScaleError(
                f"the loss is {value} at epoch {int(moment) + 1}, learning rate {rate:.3g}: the "
                "training has diverged; give a smaller --rate or a longer --warm-up"
            )
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._epoch_sums[0] += value * len(labels)
        self._epoch_sums[1] += (scores.argmax(1) == labels).sum().item()
        self._epoch_sums[2] += len(labels)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation images at the stage's size."""
        self.network.eval()
        loss = hits = count = 0.0
        for images, labels in self.batches.validation():
            with self._autocast():
                scores = self.network(images.contiguous(memory_format=self._format)).float()
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            hits += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
        self.network.train()
        return loss / count, hits / count

    # --- stages -----------------------------------------------------------------------------------

    def _begin(self, network: nn.Module, stage: int) -> None:
        self._enter(network, stage)
        self._call = torch.compile(self.network) if self.options.compile else self.network
        self._optimizer = self._new_optimizer(self.network)

    def _enter(self, network: nn.Module, stage: int) -> None:
        """Let the stage's network and image size be those of the training."""
        self._stage = stage
        self.batches.size.set(self.networks.size(stage))
        self._format = (
            torch.channels_last
            if self.options.channels_last and len(self.networks.size(stage)) == 2
            else torch.contiguous_format
        )
        self.network = network.to(self.device, memory_format=self._format).train()

    def _grow(self) -> None:
        with self._timed():
            grown = self.networks.grow(self.network, self._stage, self._optimizer)
            if grown is self.network:
                self._enter(grown, self._stage + 1)
            else:
                self._begin(grown, self._stage + 1)
        self._after_growth = self._validate()[1]

    def _new_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Weight decay is for kernels and matrices, not for biases and normalisation."""
        trained = [each for each in network.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in trained if each.ndim > 1]},
            {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        options = {"lr": self.options.rate, "weight_decay": self.options.weight_decay}
        if self.options.optimizer == "adamw":
            return torch.optim.AdamW(groups, **options)
        momentum = self.options.momentum
        return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, **options)

    def _rate(self, moment: float) -> float:
        """The learning rate at `moment` epochs."""
        epochs, schedule = self.options.epochs, self.options.schedule
        if self.recipe.decay == "throughout" or len(self.ends) == 1:
            return self.options.rate * schedule.at(moment / epochs)
        grown = self.ends[-2]
        if moment < grown:
            share = moment / (schedule.warm_up * epochs) if schedule.warm_up else 1.0
            return self.options.rate * min(max(share, 1e-3), 1.0)
        return self.options.rate * schedule.decay((moment - grown) / (epochs - grown))

    # --- checkpoints ------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        if self.folder is None:
            return
        self.folder.save(
            name,
            {
                "format": 1,
                "stage": self._stage,
                "place": list(self._place),
                "network": self.network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "records": [asdict(each) for each in self.records],
                "seconds": [self._seconds, self._processor_seconds],
                "epoch_sums": self._epoch_sums,
                "after_growth": self._after_growth,
                "best": self._best,
                "random": _random_states(),
            },
        )
        if name == "last.pt":
            self._saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        stage = state["stage"]
        self._begin(self.networks.first(stage), stage)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.records = [EpochRecord(**each) for each in state["records"]]
        self._seconds, self._processor_seconds = state["seconds"]
        self._epoch_sums = list(state["epoch_sums"])
        self._after_growth = state["after_growth"]
        self._best = state["best"]
        self._place = tuple(state["place"])
        _set_random_states(state["random"])

    # --- small things -----------------------------------------------------------------------------

    def _autocast(self):
        precision = self.options.precision
        return torch.autocast(
            self.device.type,
            dtype=getattr(torch, precision) if precision != "float32" else None,
            enabled=precision != "float32",
        )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started, processor = time.perf_counter(), time.process_time()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._seconds += time.perf_counter() - started
        self._processor_seconds += time.process_time() - processor


def seed_all(seed: int) -> None:
    """Seed every generator that a network or a training may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
