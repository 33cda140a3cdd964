"""The training loop of `graphscale train`.

In: networks (`RescaledNetworks`), batches of images, a recipe and options. Out: the trained target,
and a record of each epoch.

`Trainer.run` goes through the recipe's stages. Between two stages it grows the network and sets the
image size that the data loaders share. After each epoch, and every few minutes, it writes a
checkpoint of everything on which the rest of the training depends (weights, optimizer, random
states, place in the epoch). On a CPU, a training that was killed continues from it bit for bit.

Under torchrun each rank runs the loop with its share of each batch. Gradients are averaged, and the
other numbers of a step (losses, hits, whether to stop) are exchanged, so that all ranks decide
alike; the first one writes files.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.data_parallel import GRADIENTS
from graphscale.layers.matrix_conv import matrix_convolutions
from graphscale.training.fused_sgd import FusedSGD
from graphscale.training.image_size import SharedImageSize
from graphscale.training.ranks import Ranks
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.recipes import Recipe
from graphscale.training.run_folder import EpochRecord, RunFolder

_MAX_EPOCHS = 10**6
_CHECKPOINT_SECONDS = 300  # between checkpoints inside an epoch: what a killed training loses


# What reading a checkpoint raises that does not fit.
_DAMAGES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained; the defaults are those of `graphscale train`.

    Attributes:
        epochs: Number of epochs, all stages together.
        rate: The learning rate at its full height.
        schedule: How the learning rate changes.
        optimizer: 'sgd' (Nesterov momentum) or 'adamw'.
        momentum: Of SGD.
        weight_decay: For weights with more than one dimension.
        weight_decay_until: Number of epochs after which there is no weight decay (29 of 55 in the
            paper), or None.
        label_smoothing: Of the cross entropy.
        precision: 'float32', or torch.autocast's 'bfloat16' or 'float16' (with a scaled loss).
        channels_last: Whether weights and images are in torch.channels_last.
        compile: Whether each stage's network is compiled by torch.compile.
        seed: For the order of the images and every random choice.
        gradient: How many ranks average their gradients: 'mean', or 'onebit' after the first epoch
            (see `graphscale.distributed.DataParallel`).

    Raises:
        GraphScaleError: a number is out of range, or the optimizer or precision is unknown.
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
    gradient: str = "mean"

    def __post_init__(self) -> None:
        for option, number, least, most in (
            ("epochs", self.epochs, 1, _MAX_EPOCHS),
            ("weight-decay-until", self.weight_decay_until or 0, 0, _MAX_EPOCHS),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not least <= number <= most:
                raise GraphScaleError(f"--{option} {number}: give a number from {least} to {most}")
        for name, value, limit in (
            ("rate", self.rate, math.inf),
            ("momentum", self.momentum, 1.0),
            ("weight_decay", self.weight_decay, math.inf),
            ("label_smoothing", self.label_smoothing, 1.0),
        ):
            if not 0 <= value < limit:
                most = "finite" if limit == math.inf else f"less than {limit:g}"
                raise GraphScaleError(
                    f"--{name.replace('_', '-')} {value}: give 0 or more, but {most}"
                )
        if self.optimizer not in ("sgd", "adamw"):
            raise GraphScaleError(f"unknown optimizer {self.optimizer!r}; use sgd or adamw")
        if self.gradient not in GRADIENTS:
            raise GraphScaleError(f"unknown gradient {self.gradient!r}; use mean or onebit")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise GraphScaleError(
                f"unknown precision {self.precision!r}; use float32, bfloat16 or float16"
            )

    def for_recipe(self, recipe: Recipe) -> TrainingOptions:
        """These options with the number of epochs that a recipe needs, at least one per stage.

        The warm-up keeps its number of epochs; weight decay ends at the same share of the training.
        """
        epochs = recipe.epochs(self.epochs)
        warm_up = min(self.schedule.warm_up * self.epochs / epochs, 0.5)
        until = self.weight_decay_until
        return replace(
            self,
            epochs=epochs,
            schedule=replace(self.schedule, warm_up=warm_up),
            weight_decay_until=None if until is None else round(until * epochs / self.epochs),
        )


class Networks(Protocol):
    """What the loop needs of the networks; `RescaledNetworks` provides it."""

    def size(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's images."""

    def first(self, stage: int) -> nn.Module:
        """A new network for a stage."""

    def grow(self, network: nn.Module, stage: int, optimizer: torch.optim.Optimizer) -> nn.Module:
        """Grow `network` of stage `stage` to the next stage.

        If the result is `network` itself, its `optimizer` has been grown, too, and is used further;
        otherwise the loop makes a new optimizer.
        """


class Batches(Protocol):
    """What the loop needs of the data; `FolderBatches` and `TensorBatches` provide it."""

    size: SharedImageSize

    def training(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches (images, labels) of an epoch, from the batch `start` on, ready for the network.

        Images are float32 (N, C, H, W) on the network's device.
        """

    def validation(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of the validation images."""

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""


@dataclass
class Events:
    """Functions that the loop calls to report its progress; by default they do nothing.

    Attributes:
        stage_started: Is called with (stage, epoch, (height, width)) when a stage begins.
        batch_done: Is called with (epoch, batches done in it, batches in an epoch).
        epoch_done: Is called with the record of the epoch.
    """

    stage_started: Callable[[int, int, tuple[int, int]], None] = lambda stage, epoch, size: None
    batch_done: Callable[[int, int, int], None] = lambda epoch, batch, batches: None
    epoch_done: Callable[[EpochRecord], None] = lambda record: None


class Interrupted(Exception):
    """The training was stopped by `Trainer.stop`; a checkpoint has been written."""


class Trainer:
    """One training.

    Args:
        networks, batches: The networks of the stages, and the data.
        recipe: The recipe with the stages.
        options: How the networks are trained.
        folder: For checkpoints and logs; with None nothing is written.
        device: The device of the networks.
        events: Functions that are called on the way.
        ranks: The processes that train together.

    Attributes:
        records: One per epoch that is done.
        stop: Set it to True, in a signal handler for example, to stop after the current step.
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
        ranks: Ranks | None = None,
    ) -> None:
        self.networks = networks
        self.batches = batches
        self.recipe = recipe
        self.options = options
        self.folder = folder
        self.device = torch.device(device)
        self.events = events or Events()
        self.ranks = ranks or Ranks()
        self.ends = recipe.ends(options.epochs, options.schedule.milestones(options.epochs))
        self.records: list[EpochRecord] = []
        self.stop = False
        self._stage = 0
        self._place = (0, 0)  # the next epoch, and the next batch in it
        self._seconds = self._processor_seconds = 0.0
        self._epoch_sums = [0.0, 0.0, 0.0]  # sums over the epoch so far: losses, hits, images
        self._after_growth: float | None = None
        self._best = -1.0
        self._saved_at = time.monotonic()
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=options.precision == "float16"
        )
        self._agreed = (False, False)  # among many ranks: to stop, and to write a checkpoint

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, checkpoint: dict[str, Any] | None = None) -> nn.Module:
        """Train from the start or from a checkpoint, and return the trained target.

        Raises:
            Interrupted: `stop` was set; the checkpoint last.pt has been written.
            GraphScaleError: the loss is no longer a finite number; says in which epoch.
        """
        seed_all(self.options.seed)
        if checkpoint is None:
            with self._timed():
                self._begin(self.networks.first(0), 0)
                if not self.ranks.is_first:  # each rank has random choices of its own
                    seed_all(self.options.seed + 1_000_003 * self.ranks.rank)
        else:
            self._restore(checkpoint)
        epoch, batch = self._place
        while epoch < self.options.epochs:
            while epoch >= self.ends[self._stage]:
                self._grow()
            if batch == 0 and epoch in (0, *self.ends):
                size = self.networks.size(self._stage)
                self.events.stage_started(self._stage, epoch, size)
            self._epoch(epoch, batch)
            epoch, batch = self._place
        return self.network

    def _epoch(self, epoch: int, start: int) -> None:
        """Train one epoch from the batch `start` on, validate, and write the records."""
        count = self.batches.batches_per_epoch
        self.network.train()
        batches = self.batches.training(epoch, start)
        for index in range(start, count):
            with self._timed():
                images, labels = next(batches)
                self._step(epoch + index / count, images, labels)
            self._place = (epoch, index + 1)
            self.events.batch_done(epoch, index + 1, count)
            stop, late = self._agreed if self.ranks.count > 1 else (self.stop, self._is_late())
            if stop or (late and index + 1 < count):
                self._save("last.pt")
            if stop:
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
            if self.ranks.is_first:
                self.folder.log(self.records)
            if target and accuracy > self._best:
                self._best = accuracy
                self._save("best.pt")
            self._save("last.pt")
        self.events.epoch_done(record)

    def _step(self, epochs: float, images: torch.Tensor, labels: torch.Tensor) -> None:
        """One optimizer step after `epochs` epochs."""
        rate = self._rate(epochs)
        decays = self.options.weight_decay_until
        for group in self._optimizer.param_groups:
            group["lr"] = rate
            if decays is not None and epochs >= decays:
                group["weight_decay"] = 0.0
        images = images.contiguous(memory_format=self._format)
        with self._autocast(), self._convolutions():
            scores = self._call(images)
            loss = F.cross_entropy(
                scores.float(), labels, label_smoothing=self.options.label_smoothing
            )
        hits = (scores.argmax(1) == labels).sum().item()
        numbers = [loss.item() * len(labels), hits, len(labels), self.stop, self._is_late()]
        table = self.ranks.table(numbers)
        summed, hits, images_in_all, stop, late = table.sum(0).tolist()
        self._agreed = stop > 0, late > 0
        if not np.isfinite(summed):
            raise GraphScaleError(
                f"the loss is {summed} at epoch {int(epochs) + 1}, learning rate {rate:.3g}: the "
                "training has diverged; give a smaller --rate or a longer --warm-up"
            )
        share = len(labels) * self.ranks.count / images_in_all
        if share != 1:  # the average over ranks counts every rank alike, not every image
            loss = loss * share
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._epoch_sums[0] += summed
        self._epoch_sums[1] += hits
        self._epoch_sums[2] += images_in_all

    def _is_late(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        return time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation images at the stage's size."""
        self.ranks.copy_buffers(self.network)
        self.network.eval()
        loss = hits = count = 0.0
        for images, labels in self.batches.validation():
            with self._autocast(), self._convolutions():
                scores = self.network(images.contiguous(memory_format=self._format)).float()
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            hits += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
        self.network.train()
        loss, hits, count = self.ranks.table([loss, hits, count]).sum(0).tolist()
        return loss / count, hits / count

    # --- stages -----------------------------------------------------------------------------------

    def _begin(self, network: nn.Module, stage: int) -> None:
        """Start a stage with a new network and a new optimizer."""
        self._enter(network, stage)
        options = {} if self.options.gradient == "mean" else self._one_bit_options()
        wrapped = self.ranks.wrapped(self.network, **options)
        self._one_bit = getattr(wrapped, "one_bit", None)
        # dynamic=False: after growth torch.compile would take the image size for a variable.
        self._call = torch.compile(wrapped, dynamic=False) if self.options.compile else wrapped
        self._optimizer = self._new_optimizer(self.network)

    def _one_bit_options(self) -> dict[str, Any]:
        """Dense gradients in the first epoch of a network, then one bit."""
        steps = self.batches.batches_per_epoch
        return {"gradient": "onebit", "warm_up_steps": steps, "grad_scaler": self._scaler}

    def _enter(self, network: nn.Module, stage: int) -> None:
        """Make `network` and the stage's image size the current ones."""
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
        """The optimizer; weight decay is for kernels and matrices, not biases or normalisation."""
        trained = [each for each in network.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in trained if each.ndim > 1]},
            {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        options = {"lr": self.options.rate, "weight_decay": self.options.weight_decay}
        on_cpu = self.device.type == "cpu"
        if self.options.optimizer == "adamw":
            fused = True if on_cpu and self.options.precision != "float16" else None
            return torch.optim.AdamW(groups, fused=fused, **options)
        momentum = self.options.momentum
        kind = FusedSGD if on_cpu else torch.optim.SGD
        return kind(groups, momentum=momentum, nesterov=momentum > 0, **options)

    def _rate(self, done: float) -> float:
        """The learning rate after `done` epochs."""
        epochs, schedule = self.options.epochs, self.options.schedule
        if self.recipe.decay == "throughout" or len(self.ends) == 1:
            return self.options.rate * schedule.at(done / epochs)
        grown = self.ends[-2]
        if done < grown:
            share = done / (schedule.warm_up * epochs) if schedule.warm_up else 1.0
            return self.options.rate * min(max(share, 1e-3), 1.0)
        return self.options.rate * schedule.decay((done - grown) / (epochs - grown))

    # --- checkpoints ------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        if self.folder is None:
            return
        random_states = self.ranks.each(_random_states)
        one_bit = None if self._one_bit is None else self._one_bit.gathered_state_dict()
        if name == "last.pt":
            self._saved_at = time.monotonic()
        if not self.ranks.is_first:
            return
        self.folder.save(
            name,
            {
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
                "random": random_states,  # of each rank
                "one_bit": one_bit,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written."""
        try:
            stage, (epoch, batch) = state["stage"], state["place"]
            if {type(stage), type(epoch), type(batch)} != {int}:
                raise TypeError("stage and place are no whole numbers")
            ends, batches = [0, *self.ends], self.batches.batches_per_epoch
            fits = stage >= 0 and ends[stage] <= epoch <= ends[stage + 1]
            if not (fits and 0 <= batch <= batches):
                raise ValueError(f"stage {stage}, epoch {epoch}, batch {batch}")
            if len(state["records"]) != epoch:
                raise ValueError(f"{len(state['records'])} records of {epoch} epochs")
        except _DAMAGES as error:
            raise self._damaged(error) from None
        self._begin(self.networks.first(stage), stage)
        try:
            self._take_over(state)
        except _DAMAGES as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> GraphScaleError:
        name = "the checkpoint" if self.folder is None else self.folder.path / "last.pt"
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return GraphScaleError(
            f"{name}: is of another network or other options, or damaged ({reason}); start again "
            "without --resume"
        )

    def _take_over(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.records = [EpochRecord(**each) for each in state["records"]]
        self._seconds, self._processor_seconds = map(float, state["seconds"])
        losses, hits, images = map(float, state["epoch_sums"])
        self._epoch_sums = [losses, hits, images]
        self._after_growth = state["after_growth"]
        self._best = float(state["best"])
        self._place = tuple(state["place"])
        if self._one_bit is not None and state.get("one_bit") is not None:
            self._one_bit.load_state_dict(state["one_bit"])
        of_ranks = state["random"]
        if self.ranks.rank < len(of_ranks):
            _set_random_states(of_ranks[self.ranks.rank])
        else:  # there were fewer ranks before
            epoch, batch = self._place
            seed_all(self.options.seed + 1_000_003 * self.ranks.rank + 1009 * epoch + batch)

    # --- small things -----------------------------------------------------------------------------

    def _autocast(self):
        precision = self.options.precision
        return torch.autocast(
            self.device.type,
            dtype=getattr(torch, precision) if precision != "float32" else None,
            enabled=precision != "float32",
        )

    def _convolutions(self):
        """The context of a forward pass; torch.compile would not see what it does."""
        return nullcontext() if self.options.compile else matrix_convolutions()

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
