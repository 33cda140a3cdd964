"""The learning rate of `graphscale train` as a function of progress.

In: the progress of the training, from 0 to 1. Out: the learning rate as a share of its full height:
1 right after the warm-up, near 0 at the end. It depends on the progress alone, so an interrupted
training continues with exactly the rates that it would have had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphscale.core.errors import GraphScaleError

KINDS = ("steps", "linear", "cosine")

# Default drops of 'steps', as (share of the training, factor): the rate falls to 0.2, 0.04 and
# 0.01 of its full height.
_DROPS = ((0.5, 0.2), (0.8, 0.2), (0.9, 0.25))


@dataclass(frozen=True)
class RateSchedule:
    """How the learning rate of a training changes.

    Attributes:
        kind: 'steps', 'linear' (to zero) or 'cosine' (to zero).
        warm_up: Share of the training over which the rate first rises linearly from near zero.
        drops: For 'steps': (share of the training, factor) for each drop.

    Raises:
        GraphScaleError: the kind is unknown.
    """

    kind: str = "cosine"
    warm_up: float = 0.0
    drops: tuple[tuple[float, float], ...] = _DROPS

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GraphScaleError(f"unknown schedule {self.kind!r}; use one of {', '.join(KINDS)}")

    def at(self, progress: float) -> float:
        """The rate at `progress` (0 at the start, 1 at the end) as a share of its full height."""
        if progress < self.warm_up:
            return max(progress / self.warm_up, 1e-3)
        return self.decay(progress)

    def decay(self, progress: float) -> float:
        """The rate at `progress` without the warm-up, as a share of its full height."""
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "linear":
            return 1 - progress
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return math.prod(factor for share, factor in self.drops if progress >= share - 1e-9)

    def milestones(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which the rate drops; empty for kinds without drops."""
        if self.kind != "steps":
            return ()
        return tuple(round(share * epochs) for share, _ in self.drops)
