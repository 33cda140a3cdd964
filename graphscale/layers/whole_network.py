"""Tries, step by step of a running network, which of its layers use what was fastest alone.

The layers of a network tell `WholeNetwork` when they are called, and which changes (a pass of equal
layers, computed by another algorithm than torch's) are faster alone. Each of the network's first
steps runs with one set of these changes; the sets take turns as core/trials.py wants, and the set
with which a step is the fastest is kept. A step is all calls from the first layer's to the end of
the backward pass, or to the last layer's without one: nothing is computed twice or in vain.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from graphscale.core.trials import Change, Outcome, Seconds, Sets, trials

# Before the trials end, the changes that gain at least this much alone are made.
_MIN_GAIN = 1.5
# All steps make the changes that gain more than this alone.
_SURE_GAIN = 10.0
_ROUNDS = 4  # in each of which every set of a trial has a turn; the fastest turn counts
_HOPELESS_RATIO = 3.0  # to the fastest set: a set that takes more has no further turn
_MAX_SITUATIONS = 32  # input sizes and modes of a network for which there are trials


@dataclass(eq=False)
class _Situation:
    """Steps of one kind: the same input size, type and memory format of the first layer, and mode.

    Attributes:
        changes: The changes that are faster alone, by key.
        chosen: The set that is kept; None until the trials have ended.
        calls: The algorithms of layers' calls after that.
    """

    changes: dict[str, Change] = field(default_factory=dict)
    chosen: frozenset[str] | None = None
    calls: dict[Hashable, dict[str, str]] = field(default_factory=dict)
    _search: Generator[Sets, Seconds, Outcome] | None = None
    _sets: Sets = field(default_factory=dict)
    _turns: list[str] = field(default_factory=list)  # that are still to come, the last one first
    _seconds: Seconds = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def begin(self) -> frozenset[str] | None:
        """The set of changes for the next step; None for those that gain much alone."""
        if self._search is not None:
            return self._sets[self._turns[-1]]
        if self.chosen is None:  # no step before has ended: this one counts the changes anew
            self.changes = {}
        return self.chosen

    def end(self, seconds: float) -> None:
        """Take the seconds of the step that `begin` was for."""
        if self.chosen is not None:
            return
        if self._search is None:  # the first step, in which the layers have measured themselves
            if not self.changes:
                self.chosen = frozenset()
                return
            self._search = trials(self.changes, _SURE_GAIN)
            self._try(next(self._search))
            return
        name = self._turns.pop()
        self._seconds[name] = min(self._seconds[name], seconds)
        limit = _HOPELESS_RATIO * min(self._seconds.values())
        hopeless = {each for each, best in self._seconds.items() if limit < best < math.inf}
        self._turns = [each for each in self._turns if each not in hopeless]
        if self._turns:
            return
        try:
            self._try(self._search.send(self._seconds))
        except StopIteration as finished:
            self.chosen, self._search = finished.value.chosen, None

    def _try(self, sets: Sets) -> None:
        self._sets, self._seconds = sets, dict.fromkeys(sets, math.inf)
        # In any order, so that sets do not always meet the same of two kinds of steps that
        # alternate, such as those of a network with two losses.
        self._turns = [
            name for _ in range(_ROUNDS) for name in self._random.sample(list(sets), len(sets))
        ]


@dataclass
class _Step:
    """A step that runs: its beginning and, as far as it has come, its end."""

    situation: _Situation
    first: nn.Module
    learns: bool
    chosen: frozenset[str] | None
    began: float
    thread: int = field(default_factory=threading.get_ident)
    ended: float = math.inf
    went_back: bool = False  # whether a backward pass has ended

    def finish(self) -> None:
        """Give the time to the situation; a step that learns counts with its backward pass only."""
        if self.went_back or not self.learns:
            self.situation.end(self.ended - self.began)


class WholeNetwork:
    """What the layers of one network share: the running step, and the sets that were chosen.

    A copy, and what pickle restores, begins anew.
    """

    def __init__(self) -> None:
        self._situations: dict[object, _Situation] = {}
        self._step: _Step | None = None
        self._entrance = threading.Lock()  # nobody waits for it: who finds it locked stays outside

    def __reduce__(self) -> tuple[type[WholeNetwork], tuple[()]]:
        return WholeNetwork, ()

    def enter(self, layer: nn.Module, x: Tensor, learns: bool) -> None:
        """Tell that `layer` is called with `x`, in a training step or not: a step may begin."""
        if not self._entrance.acquire(blocking=False):
            return
        try:
            step = self._step
            if step is not None and not (step.went_back or step.first is layer):
                return  # amid a step
            if step is not None:
                step.finish()
            kind = (layer, x.shape, x.dtype, x.is_contiguous(), learns, layer.training)
            if kind not in self._situations and len(self._situations) >= _MAX_SITUATIONS:
                self._step = None
                return
            situation = self._situations.setdefault(kind, _Situation())
            self._step = _Step(situation, layer, learns, situation.begin(), time.perf_counter())
        finally:
            self._entrance.release()

    @property
    def settled(self) -> dict[Hashable, dict[str, str]] | None:
        """What layers note about their calls once the running step's set is chosen; else None."""
        step = self._step
        if step is None or step.situation.chosen is None:
            return None
        return step.situation.calls

    @property
    def trying(self) -> bool:
        """Whether the running step is a trial."""
        step = self._step
        return step is not None and step.chosen is not None and step.situation.chosen is None

    def selected(self, changes: Mapping[str, Change]) -> set[str]:
        """Those of a layer's changes that are made in this step.

        Args:
            changes: By key; equal layers give equal ones.
        """
        step = self._step
        if step is None or step.chosen is None:
            if step is not None:
                self._count(step.situation.changes, changes)
            return {key for key, change in changes.items() if change.gain >= _MIN_GAIN}
        known = step.situation.changes  # not those of a layer that the first step left out
        return {
            key
            for key, change in changes.items()
            if key in step.chosen or (key not in known and change.gain >= _MIN_GAIN)
        }

    def leave(self, y: Tensor) -> None:
        """Tell that a layer has computed `y`."""
        step = self._step
        if (
            step is None
            or step.situation.chosen is not None
            or step.thread != threading.get_ident()
        ):
            return
        step.ended = time.perf_counter()
        if y.requires_grad:
            y.register_hook(_calls_at_the_end_of_backward(step))

    @staticmethod
    def _count(known: dict[str, Change], changes: Mapping[str, Change]) -> None:
        """Add the changes of one more layer to the known ones."""
        for key, change in changes.items():
            seconds = known[key].seconds if key in known else 0.0
            known[key] = Change(seconds + change.seconds, change.gain)


def _calls_at_the_end_of_backward(step: _Step) -> Callable[[Tensor], None]:
    """A hook of a tensor that notes when the backward pass ends which it is called in."""

    def end() -> None:
        step.ended, step.went_back = time.perf_counter(), True

    def hook(grad: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(end)

    return hook
