"""The processes that train together under torchrun, as `graphscale train` needs them.

In: torchrun's environment variables. Out: `Ranks`, which says who this process is and exchanges
small values, and errors in one sentence when another rank has ended. Without torchrun there is one
rank, and nothing is exchanged.

Gradients go through the default process group, whose collectives fail after `_PATIENCE`: a machine
that is gone must not stop the others for long. Checkpoints and the results of long work go through
a second group, which waits as long as the other ranks live.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.distributed import DataParallel

_PATIENCE = timedelta(seconds=50)
_FOR_LONG_WORK = timedelta(days=7)
# What torch's errors name when a peer has gone; they are plain RuntimeErrors.
_COMMUNICATION = ("gloo", "nccl", "peer", "connection", "timed out", "store", "socket")

Value = TypeVar("Value")


class Ranks:
    """Who trains: this process, or `count` processes of which it is number `rank`."""

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.count = count
        self._group = group

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def table(self, values: Sequence[float]) -> torch.Tensor:
        """float64 [count, len(values)]: the values of every rank."""
        own = torch.tensor([values], dtype=torch.float64)
        if self.count == 1:
            return own
        rows = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(rows, own, group=self._group)
        return torch.cat(rows)

    def each(self, function: Callable[[], Value]) -> list[Value]:
        """What `function` returns on every rank.

        Raises:
            GraphScaleError: the first one that `function` raised on any rank, on every rank.
        """
        if self.count == 1:
            return [function()]
        answers: list = [None] * self.count
        dist.all_gather_object(answers, _attempt(function), group=self._group)
        return _values(answers)

    def first(self, function: Callable[[], Value]) -> Value:
        """What `function` returns on the first rank, which alone calls it; raises as `each`."""
        if self.count == 1:
            return function()
        answers: list = [_attempt(function) if self.is_first else None]
        dist.broadcast_object_list(answers, src=0, group=self._group)
        return _values(answers)[0]

    def wrapped(self, network: nn.Module, **options: Any) -> nn.Module:
        """The network in `DataParallel`, for its training steps; with one rank, the network."""
        return network if self.count == 1 else DataParallel(network, **options)

    def copy_buffers(self, network: nn.Module) -> None:
        """Give every rank the first rank's buffers, such as BatchNorm's statistics."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


def _attempt(function: Callable[[], Value]) -> tuple[Value | None, str | None]:
    """What `function` returns, or the text of the GraphScaleError that it raises."""
    try:
        return function(), None
    except GraphScaleError as error:
        return None, str(error)


def _values(answers: Sequence[tuple[Any, str | None]]) -> list:
    """The values of attempts; raises the first error among them."""
    for _, failure in answers:
        if failure is not None:
            raise GraphScaleError(failure)
    return [value for value, _ in answers]


def is_first_rank() -> bool:
    """Whether torchrun says that this is rank 0, or there is no torchrun."""
    return not _started_by_torchrun() or os.environ["RANK"] == "0"


def is_restart() -> bool:
    """Whether torchrun started the training again after a rank had ended (--max-restarts)."""
    return _started_by_torchrun() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def local_ranks() -> int:
    """How many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _started_by_torchrun() else 1


def rank_device(name: str) -> str:
    """'cuda' with the number of the GPU that is this rank's; other names as they are."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and _started_by_torchrun() else name


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """A context in which the processes that torchrun started know each other.

    Args:
        device: 'cpu' (gloo) or 'cuda' (NCCL).

    Raises:
        GraphScaleError: the ranks do not find each other, or another rank has ended.
    """
    if not _started_by_torchrun():
        yield Ranks()
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        if device.startswith("cuda"):
            torch.cuda.set_device(torch.device(rank_device(device)))
        backend = "nccl" if device.startswith("cuda") else "gloo"
        # torchrun may use one store for all its restarts: old addresses in it must not be found.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store, _, _ = next(dist.rendezvous("env://", timeout=_PATIENCE))
        store = dist.PrefixStore(f"graphscale/{attempt}", store)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE
        )
        group = dist.new_group(backend="gloo", timeout=_FOR_LONG_WORK)
        yield Ranks(rank, count, group)
    except RuntimeError as error:
        # Of torch's text, not the place in gloo's sources that some begin with.
        text = re.sub(r"^\[/[^]]*\] ", "", " ".join(str(error).split()))
        if not any(word in text.lower() for word in _COMMUNICATION):
            raise
        raise GraphScaleError(
            f"rank {rank} of {count}: another rank has ended or does not answer ({text[:100]}); "
            "the training goes on from its last checkpoint with --resume"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _started_by_torchrun() -> bool:
    return all(each in os.environ for each in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK"))
