"""`GrowthSchedule`: grow a module at the right time in any training loop.

In: the pre-train module, the length of the training, and when to grow. The loop calls `step` after
each epoch or batch. Out: the module is grown in place, with its optimizers, when it is time;
`image_size` is the size of the images that it takes. The schedule is deterministic and can be saved
and resumed. The learning rate is set by `GrowthLR`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

from torch import nn

from graphscale.core.arguments import (
    instance,
    one_of,
    real_number,
    whole_number,
    whole_numbers,
    wrong,
)
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.core.resampling import check_method
from graphscale.training.grow_in_place import (
    AMPLITUDES,
    OPTIMIZER_STATES,
    copies_of,
    grow_,
    optimizers_of,
    pretrain_part,
)
from graphscale.training.growth_stages import GrowthStage
from graphscale.training.image_size import ResizeInputs, SharedImageSize


@dataclass(frozen=True)
class BeforeDrop:
    """Grow `units` before the learning rate first drops; the paper uses 1 or 2 epochs.

    Attributes:
        milestones: Units after which the rate drops, or a scheduler that has `milestones`, such as
            MultiStepLR.
        units: How many units before the first drop.
    """

    milestones: Any
    units: int = 1

    def position(self) -> int:
        """The number of units after which to grow.

        Raises:
            GraphScaleError: `milestones` or `units` are no whole numbers.
        """
        given = self.milestones
        if hasattr(given, "milestones"):
            given = list(given.milestones)
        wanted = "the units after which the rate drops, or a scheduler that has milestones"
        first = min(whole_numbers("BeforeDrop: milestones", given, wanted, 0))
        return first - whole_number("BeforeDrop: units", self.units, 0)


@dataclass(frozen=True)
class Plateau:
    """Grow when the validation score has stopped improving.

    Attributes:
        patience: Grow after so many scores without a new best one.
        min_delta: A score counts as better if it differs from the best by more than this.
        latest: Grow after this share of the training in any case.
    """

    patience: int = 2
    min_delta: float = 0.0
    latest: float = 0.9


When = int | float | BeforeDrop | Plateau


class GrowthSchedule:
    """Grows a pre-train network during training.

    The loop calls `step` after each *unit* of training, an epoch or a batch; all times are counted
    in units. Under DistributedDataParallel every rank must pass the same scores.

    Args:
        module: What `shrink` returned, or the module of `GrowthStages`; also inside wrappers, or as
            the only shrunk part of a larger module.
        total: Number of units of the whole training.
        grow_at: When to grow: after so many units (int), after a share of them (float), or as
            `BeforeDrop` or `Plateau` say. For several stages a list, whose last entry is for the
            growth to the target.
        later: The later stages; one fewer than `grow_at` has entries.
        optimizers: As for `grow_`; may be set later, as the attribute.
        averages: As for `grow_`; may be set later, as the attribute.
        extra_until_drop: At most so many extra units are added after the last growth, at the same
            learning rate, until the validation score first drops (section 5.2 of arXiv 1610.03623).
        higher_is_better: Whether a larger score is a better one.
        shared_size: A `SharedImageSize` that follows the image size.
        resize_inputs: Let a hook (`ResizeInputs`) resize the images that the module is given, so
            that the rest of the loop need not change.
        optimizer_state, resize, amplitude: As for `grow_`.

    Attributes:
        position: Number of units done, with extra ones.
        extra: Number of extra units done, of `extra_until_drop`.
        grown_at: The positions at which the module has grown.
        holding: Whether extra units are being done, in which the learning rate does not change.

    Raises:
        GraphScaleError: the module has no plan, or a time of growth lies outside the training.

    Example:
        >>> import torch, graphscale
        >>> from graphscale.training import GrowthLR, GrowthSchedule, resize_batch
        >>> target = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU())
        >>> model = graphscale.shrink(target, torch.randn(2, 3, 32, 32))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        >>> schedule = GrowthSchedule(model, total=10, grow_at=0.7, optimizers=optimizer)
        >>> rates = GrowthLR(schedule, optimizer, after="restart")
        >>> for epoch in schedule:
        ...     for images in [torch.rand(4, 3, 32, 32)]:
        ...         images = resize_batch(images, schedule.image_size)
        ...         model(images).mean().backward()
        ...         optimizer.step()
        ...     _ = schedule.step()
        ...     rates.step()
        >>> schedule.grown_at
        [7]
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        total: int,
        grow_at: When | Sequence[When],
        later: Sequence[GrowthStage] = (),
        optimizers: Any = (),
        averages: Any = (),
        extra_until_drop: int = 0,
        higher_is_better: bool = True,
        shared_size: SharedImageSize | None = None,
        resize_inputs: bool = False,
        optimizer_state: str = "resize",
        resize: str = "bilinear",
        amplitude: str = "response",
    ) -> None:
        self.module = pretrain_part(module)
        plan = self.module.graphscale_plan
        self.total = whole_number("total", total, 1)
        self.optimizers = optimizers_of(optimizers)
        self.averages = averages
        self.later = _stages(later)
        self.extra_until_drop = whole_number("extra_until_drop", extra_until_drop, 0)
        self.higher_is_better = higher_is_better
        if shared_size is not None:
            instance("shared_size", shared_size, SharedImageSize, "a SharedImageSize")
        self.shared_size = shared_size
        self.optimizer_state = one_of("optimizer_state", optimizer_state, OPTIMIZER_STATES)
        check_method(resize)
        self.resize = resize
        self.amplitude = one_of("amplitude", amplitude, AMPLITUDES)
        several = isinstance(grow_at, Sequence) and not isinstance(grow_at, str | bytes)
        given = list(grow_at) if several else [grow_at]
        self._when = [_position(each, self.total) for each in given]
        self._check()
        self._sizes = [_sizes(each)[0] for each in (plan, *(s.plan for s in self.later))]
        self._sizes.append(_sizes(plan)[1])
        self.position = 0
        self.extra = 0
        self.grown_at: list[int] = []
        self.holding = False
        self._best: float | None = None
        self._last: float | None = None
        self._scores_since_best = 0
        if resize_inputs:
            hook = ResizeInputs(self.image_size)
            for each in (self.module, *self._copies()):
                each.register_forward_pre_hook(hook, prepend=True)  # before CheckImageSize
        self._tell_size()

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width of the images that the module takes now."""
        return self._sizes[len(self.grown_at)]

    @property
    def grown(self) -> bool:
        """Whether the module has become the target."""
        return len(self.grown_at) == len(self._when)

    @property
    def since_growth(self) -> int | None:
        """Units since the last growth, without extra ones; None before the first growth."""
        return self.position - self.extra - self.grown_at[-1] if self.grown_at else None

    @property
    def finished(self) -> bool:
        """Whether the training is over."""
        return self.position - self.extra >= self.total

    def __iter__(self) -> Iterator[int]:
        """Iterate over the units that are left; the loop's body must call `step` once for each."""
        while not self.finished:
            before = self.position
            yield before
            if self.position == before:
                raise GraphScaleError(
                    "schedule.step() was not called in this pass of the loop; call it at the end "
                    "of the loop's body"
                )

    def step(self, score: float | None = None) -> bool:
        """Count a unit of training as done, and grow the module if it is time.

        Args:
            score: The validation score after this unit, if there is one.

        Returns:
            Whether the module has grown now.
        """
        if self.holding:
            self.extra += 1
        self.position += 1
        if score is not None:
            self._note(_score(score))
        if self.extra >= self.extra_until_drop:
            self.holding = False
        if not self.grown and self._is_time():
            self.grow()
            return True
        return False

    def grow(self) -> None:
        """Grow to the next stage now, even before its time.

        Raises:
            GraphScaleError: the module is the target already, or `grow_` raises it.
        """
        if self.grown:
            raise GraphScaleError("the module is grown already; there is no further stage")
        stage = len(self.grown_at)
        grow_(
            self.module,
            to=self.later[stage] if stage < len(self.later) else None,
            optimizers=self.optimizers,
            averages=self.averages,
            optimizer_state=self.optimizer_state,
            resize=self.resize,
            amplitude=self.amplitude,
        )
        self.grown_at.append(self.position)
        self._best = self._last = None
        self._scores_since_best = 0
        self.holding = self.grown and self.extra_until_drop > 0
        self._tell_size()

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedule, as numbers and lists of numbers."""
        return {
            "position": self.position,
            "extra": self.extra,
            "grown_at": list(self.grown_at),
            "holding": self.holding,
            "best": self._best,
            "last": self._last,
            "scores_since_best": self._scores_since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; load the schedule first, then the module and the optimizers.

        If the module had grown when the state was saved, it is grown now, so that its weights and
        the optimizers' state fit.

        Raises:
            GraphScaleError: the state is no schedule's, or the module has grown more often than it
                says.
        """
        _check_state(state, len(self._when))
        if len(self.grown_at) > len(state["grown_at"]):
            raise GraphScaleError(
                "the module has grown further than this state; load it into the module that shrink "
                "returns"
            )
        while len(self.grown_at) < len(state["grown_at"]):
            self.grow()
        self.position = state["position"]
        self.extra = state["extra"]
        self.grown_at = list(state["grown_at"])
        self.holding = state["holding"]
        self._best = state["best"]
        self._last = state["last"]
        self._scores_since_best = state["scores_since_best"]

    def _copies(self) -> list[nn.Module]:
        return copies_of(self.module, self.averages)

    def _check(self) -> None:
        if len(self._when) != len(self.later) + 1:
            raise GraphScaleError(
                f"{len(self._when)} times of growth are given for {len(self.later)} later stages "
                "and the target; give one time for each"
            )
        fixed = [each for each in self._when if isinstance(each, int)]
        if fixed != sorted(set(fixed)) or any(not 0 < each < self.total for each in fixed):
            raise GraphScaleError(
                f"growth after {', '.join(map(str, fixed))} of {self.total} units is no schedule; "
                "give increasing times inside the training"
            )

    def _is_time(self) -> bool:
        when = self._when[len(self.grown_at)]
        if isinstance(when, int):
            return self.position >= when
        return self._scores_since_best >= when.patience or (
            self.position >= round(when.latest * self.total)
        )

    def _note(self, score: float) -> None:
        sign = 1.0 if self.higher_is_better else -1.0
        when = None if self.grown else self._when[len(self.grown_at)]
        delta = when.min_delta if isinstance(when, Plateau) else 0.0
        improved = self._best is None or sign * (score - self._best) > delta
        if improved and not math.isnan(score):
            self._best = score
            self._scores_since_best = 0
        else:
            self._scores_since_best += 1
        if self._last is not None and sign * (score - self._last) < 0:
            self.holding = False
        self._last = score

    def _tell_size(self) -> None:
        """Give workers and hooks the current image size; at the target, remove the hooks."""
        if self.shared_size is not None:
            self.shared_size.set(self.image_size)
        for module in (self.module, *self._copies()):
            hooks = module._forward_pre_hooks
            for key in [key for key, hook in hooks.items() if isinstance(hook, ResizeInputs)]:
                if self.grown:
                    del hooks[key]
                else:
                    hooks[key].size = self.image_size


def _position(when: When, total: int) -> int | Plateau:
    """The number of units after which to grow; a Plateau stays one, since its time is unknown."""
    if isinstance(when, Plateau):
        whole_number("Plateau: patience", when.patience, 1)
        real_number("Plateau: min_delta", when.min_delta, 0)
        real_number("Plateau: latest", when.latest, 0, 1)
        return when
    if isinstance(when, BeforeDrop):
        return when.position()
    if isinstance(when, SupportsIndex):
        return whole_number("grow_at", when)
    if not isinstance(when, SupportsFloat):
        raise wrong("grow_at", when, "a number of units, a share, a BeforeDrop or a Plateau")
    return round(real_number("grow_at", when) * total)


def _stages(later: Sequence[GrowthStage]) -> list[GrowthStage]:
    wanted = "the list `later` of a GrowthStages"
    try:
        return [instance("later", each, GrowthStage, wanted) for each in later]
    except TypeError:  # it is no collection
        raise wrong("later", later, wanted) from None


def _score(score: Any) -> float:
    """A validation score as a number; NaN, of a training that diverges, is no better one."""
    try:
        return float(score)
    except (TypeError, ValueError):
        raise wrong("score", score, "the validation score as a number, or None") from None


def _check_state(state: Any, growths: int) -> None:
    """Raise where `state` is not what `GrowthSchedule.state_dict` returned."""
    keys = {"position", "extra", "grown_at", "holding", "best", "last", "scores_since_best"}
    if not isinstance(state, Mapping) or not keys <= state.keys():
        raise wrong("state", state, "what the state_dict of a GrowthSchedule returned")
    for key in ("position", "extra", "scores_since_best"):
        whole_number(f"state[{key!r}]", state[key], 0)
    for key in ("best", "last"):
        if state[key] is not None:
            instance(f"state[{key!r}]", state[key], int | float, "a score or None")
    instance("state['holding']", state["holding"], bool, "True or False")
    instance("state['grown_at']", state["grown_at"], list, "the list of the units of growth")
    for each in state["grown_at"]:
        whole_number("an entry of state['grown_at']", each, 0)
    if len(state["grown_at"]) > growths:
        raise GraphScaleError(
            f"the state is of a schedule with {len(state['grown_at'])} times of growth or more, "
            f"this one has {growths}; make the schedule as the training that is resumed did"
        )


def _sizes(plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(height, width) of the images in the pre-train network and in the target."""
    image = plan.image
    target = [] if image is None else [image.target[place] for place in image.spatial]
    sizes = tuple(size for size in target if isinstance(size, int))
    if not sizes or len(sizes) < len(target) or len(plan.image_size) < len(target):
        raise GraphScaleError(
            "the plan leaves the image size open; shrink with an example of the target's size"
        )
    return plan.image_size, sizes
