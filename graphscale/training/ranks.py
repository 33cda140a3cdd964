"""The processes that train together under torchrun, as `graphscale train` needs them.

In: torchrun's environment variables. Out: `Ranks`, which says who this process is and exchanges
small values, and errors in one sentence when another rank has ended. Without torchrun there is one
rank, and nothing is exchanged.

Gradients go through the default process group, whose collectives fail after `_PATIENCE`: a machine
that is gone must not stop the others for long. Checkpoints and the results of long work go through
a second group, which waits as long as the other ranks live: each rank has a thread that says so
every few seconds (`_Heartbeat`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.distributed import DataParallel

_MEETING = timedelta(minutes=2)  # until all ranks have started
_PATIENCE = timedelta(seconds=35)
_FOR_LONG_WORK = timedelta(days=7)
_BEAT = timedelta(seconds=5)
_SILENCE = timedelta(seconds=30)  # after which a rank counts as gone
# What torch's errors name when a peer has gone; they are plain RuntimeErrors.
_COMMUNICATION = ("gloo", "nccl", "peer", "connection", "timed out", "store", "socket")

_trainings = itertools.count()  # of this process; every rank counts the same

Value = TypeVar("Value")


class Ranks:
    """Who trains: this process, or `count` processes of which it is number `rank`."""

    def __init__(
        self, rank: int = 0, count: int = 1, group: Any = None, heartbeat: _Heartbeat | None = None
    ) -> None:
        self.rank = rank
        self.count = count
        self._group = group
        self._heartbeat = heartbeat

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def table(self, values: Sequence[float]) -> torch.Tensor:
        """float64 [count, len(values)]: the values of every rank."""
        own = torch.tensor([values], dtype=torch.float64)
        return own if self.count == 1 else torch.cat(self._gathered(own))

    def each(self, function: Callable[[], Value]) -> list[Value]:
        """What `function` returns on every rank.

        Raises:
            GraphScaleError: the first one that `function` raised on any rank, on every rank.
        """
        if self.count == 1:
            return [function()]
        own = torch.frombuffer(bytearray(pickle.dumps(_attempt(function))), dtype=torch.uint8)
        lengths = self.table([len(own)]).long().flatten().tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        answers = zip(self._gathered(padded), lengths)
        return _values([pickle.loads(each[:length].numpy()) for each, length in answers])

    def first(self, function: Callable[[], Value]) -> Value:
        """What `function` returns on the first rank, which alone calls it; raises as `each`."""
        if self.count == 1:
            return function()
        content = bytearray(pickle.dumps(_attempt(function))) if self.is_first else bytearray(1)
        length = int(self.table([len(content)])[0])
        if not self.is_first:
            content = bytearray(length)
        answer = torch.frombuffer(content, dtype=torch.uint8)
        self._wait(dist.broadcast(answer, 0, group=self._group, async_op=True))
        return _values([pickle.loads(content)])[0]

    def wrapped(self, network: nn.Module, **options: Any) -> nn.Module:
        """The network in `DataParallel`, for its training steps; with one rank, the network."""
        return network if self.count == 1 else DataParallel(network, **options)

    def _gathered(self, own: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every rank, of one shape."""
        every = [torch.empty_like(own) for _ in range(self.count)]
        self._wait(dist.all_gather(every, own, group=self._group, async_op=True))
        return every

    def _wait(self, work: dist.Work) -> None:
        """Wait for a collective as long as the other ranks live."""
        while True:
            try:
                work.wait(_BEAT)
                return
            except RuntimeError:
                if work.is_completed():  # it has failed
                    raise
            if self._heartbeat is not None:
                self._heartbeat.check()

    def copy_buffers(self, network: nn.Module) -> None:
        """Give every rank the first rank's buffers, such as BatchNorm's statistics."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


class _Heartbeat:
    """A thread by which the ranks know that the others live, also those that compute for long.

    Every few seconds it counts up a number in torchrun's store, and reads those of all ranks.
    """

    def __init__(self, store: dist.Store, rank: int, count: int) -> None:
        self._store = store.clone()  # with a connection of its own
        self._own = f"beat/{rank}"
        self._keys = [f"beat/{each}" for each in range(count)]
        self._store.set(self._own, "0")
        self._counts: list[bytes] = []
        self._heard = [time.monotonic()] * count
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread, after all ranks have made their heartbeats."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, unless it waits for a machine that is gone."""
        self._stop.set()
        self._thread.join(timeout=1)

    def check(self) -> None:
        """Raise RuntimeError if a rank has been silent; all are, if the store's machine is gone."""
        now = time.monotonic()
        silent = [now - heard > _SILENCE.total_seconds() for heard in self._heard]
        if any(silent):
            rank = silent.index(True)
            raise RuntimeError(f"timed out: rank {rank} has said nothing for {_SILENCE}")

    def _run(self) -> None:
        beats = 0
        with contextlib.suppress(RuntimeError):  # silence, which `check` tells
            while not self._stop.wait(_BEAT.total_seconds()):
                beats += 1
                self._store.set(self._own, str(beats))
                counts = self._store.multi_get(self._keys)
                for rank, (count, before) in enumerate(zip_longest(counts, self._counts)):
                    if count != before:
                        self._heard[rank] = time.monotonic()
                self._counts = counts


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
    heartbeat = None
    groups: list[dist.ProcessGroup | None] = []
    try:
        if device.startswith("cuda"):
            torch.cuda.set_device(torch.device(rank_device(device)))
        backend = "nccl" if device.startswith("cuda") else "gloo"
        store = _meeting_place(rank, count)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE
        )
        groups.append(dist.group.WORLD)
        heartbeat = _Heartbeat(store, rank, count)
        group = dist.new_group(backend="gloo", timeout=_FOR_LONG_WORK)  # waits for all ranks
        groups.append(group)
        heartbeat.start()
        yield Ranks(rank, count, group, heartbeat)
        # The last collective's tensors are released by a thread of gloo's that needs Python's lock.
        # If the group is destroyed meanwhile, torch waits for that thread and keeps the lock. A
        # rank that has ended already does no harm here: the training is done.
        with contextlib.suppress(RuntimeError):
            dist.barrier(group)
    except RuntimeError as error:
        # Of torch's text, not the place in gloo's sources that some begin with.
        text = re.sub(r"^\[/[^]]*\] ", "", " ".join(str(error).split()))
        if not any(word in text.lower() for word in _COMMUNICATION):
            raise
        _abandon_groups(groups)
        raise GraphScaleError(
            f"rank {rank} of {count}: another rank has ended or does not answer ({text[:100]}); "
            "the training goes on from its last checkpoint with --resume"
        ) from error
    finally:
        if heartbeat is not None:
            heartbeat.stop()
        if dist.is_initialized():
            dist.destroy_process_group()


def _meeting_place(rank: int, count: int) -> dist.Store:
    """A store for one training, after all ranks have come to it.

    torchrun may use one store for all its restarts, and a process may train several times: old
    addresses must not be found, so each training has its own names in it.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"graphscale/{attempt}/{next(_trainings)}", _torchrun_store())
    store.set(f"here/{rank}", "")
    store.wait([f"here/{each}" for each in range(count)], _MEETING)
    return store


@functools.cache
def _torchrun_store() -> dist.Store:
    """The store that all ranks share, kept to the end of the process.

    Where rank 0 serves it, a faster rank would otherwise come for its next training to a store
    that is about to end.
    """
    store, _, _ = next(dist.rendezvous("env://", timeout=_MEETING))
    store.set_timeout(_PATIENCE)
    return store


def _abandon_groups(groups: Sequence[dist.ProcessGroup | None]) -> None:
    """Keep the groups to the end of the process, without their end.

    A group's destructor waits until its last collective has ended or timed out; with a rank that
    is gone, that is hours.
    """
    for group in groups:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


def _started_by_torchrun() -> bool:
    return all(each in os.environ for each in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK"))
