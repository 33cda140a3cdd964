"""Chooses, by trials of a whole network, which of several changes are made.

Changes, each of which makes some equal layers faster alone, go in; the set of them with which the
whole is the fastest comes out. Trials are needed because a layer measured alone shows neither what
its neighbours lose (the runtime's memory layout, the caches) nor what preparing its weights costs
among others. `trials` is the search alone: its caller makes a set of changes and takes the time,
be it of an ONNX model's runs (acceleration) or of a module's training steps (layers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from graphscale.core.tuning import fastest

# First the sets of all changes that gain at least this much alone are tried ...
_MIN_GAINS = (1.0, 1.5, 3.0)
# ... then single changes join or leave the best set, where the whole gets faster: those that save
# the most time alone, and concern layers that take at least this share of the whole.
_MAX_CHANGES = 8
_MIN_SHARE = 0.02
_MAX_TIME_RATIO = 0.99  # a change must take less than this share of the seconds before
BEFORE = "before"
AFTER = "after"

Key = TypeVar("Key", bound=Hashable)
# Sets of changes by name, and the seconds that the whole takes with each of them.
Sets = dict[str, frozenset[Key]]
Seconds = dict[str, float]


@dataclass(frozen=True)
class Change:
    """What a change does to its layers alone.

    Attributes:
        seconds: What all of them take together before the change, per run of the whole.
        gain: How many times faster they are with it; infinite where it must be tried first.
    """

    seconds: float
    gain: float

    @property
    def saved(self) -> float:
        """The seconds that it saves alone, per run of the whole."""
        return self.seconds * (1 - 1 / self.gain)


@dataclass(frozen=True)
class Outcome:
    """The chosen set, and seconds of the whole without it and with it.

    The set holds only what is sure, and both are equal, where the whole would not be 5 % faster.
    """

    chosen: frozenset
    before: float
    after: float


def trials(
    changes: Mapping[Key, Change], sure_gain: float = math.inf
) -> Generator[Sets, Seconds, Outcome]:
    """Yields sets of changes, which must take turns in the whole; is sent the seconds of each.

    Args:
        changes: At least one.
        sure_gain: Changes that gain more than this alone are made in every set: without them, the
            whole might take minutes.

    Returns:
        The `Outcome`, as the generator's value.

    Example:
        >>> search = trials({"first layer": Change(seconds=0.1, gain=2.0)})
        >>> next(search)
        {'before': frozenset(), 'gains of 1.0 and more': frozenset({'first layer'})}
    """
    sure = frozenset(key for key, change in changes.items() if change.gain > sure_gain)
    sets: Sets = {BEFORE: sure}
    for min_gain in _MIN_GAINS:
        chosen = frozenset(key for key, change in changes.items() if change.gain >= min_gain)
        chosen |= sure
        if chosen not in sets.values():
            sets[f"gains of {min_gain} and more"] = chosen
    seconds = yield sets
    first = min(seconds, key=seconds.__getitem__)
    best, before, after = sets[first], seconds[BEFORE], seconds[first]
    changed = False
    for key in _worth_trying(changes, sure, after):
        other = best ^ {key}
        step = yield {"best": best, "changed": other}
        if step["changed"] < _MAX_TIME_RATIO * step["best"]:
            best, changed = other, True
    if changed:  # the whole as it was has had no turn beside this set
        seconds = yield {BEFORE: sure, AFTER: best}
        before, after = seconds[BEFORE], seconds[AFTER]
    if fastest({BEFORE: before, AFTER: after}, BEFORE) == BEFORE:
        return Outcome(sure, before, before)
    return Outcome(best, before, after)


def try_all(changes: Mapping[Key, Change], measure: Callable[[Sets], Seconds]) -> Outcome:
    """The outcome of `trials`, where ``measure`` takes the seconds of some sets at once."""
    search = trials(changes)
    sets = next(search)
    while True:
        try:
            sets = search.send(measure(sets))
        except StopIteration as finished:
            return finished.value


def _worth_trying(changes: Mapping[Key, Change], sure: frozenset[Key], whole: float) -> list[Key]:
    """The changes that join or leave the best set one by one, in this order."""
    if len(changes) - len(sure) == 1:
        return []
    large = [
        key
        for key, change in changes.items()
        if change.seconds >= _MIN_SHARE * whole and key not in sure
    ]
    return sorted(large, key=lambda key: changes[key].saved, reverse=True)[:_MAX_CHANGES]
