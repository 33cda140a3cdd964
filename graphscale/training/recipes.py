"""The recipes of `graphscale train`: which network is trained on which images, and for how long.

A recipe is a list of stages. The last stage trains the target itself; each stage before it trains a
network that `shrink` derives from the target, with smaller images and, if its kernel table says so,
smaller kernels. Between two stages the network grows in place. `recipe(name)` gives one of these:

- ``target``: the target alone, the baseline.
- ``paper``: smaller kernels and images until one epoch before the first drop of the learning rate
  (arXiv 1610.03623, section 5), then the target; the rate follows its schedule throughout.
- ``late``: smaller images, which become larger in steps, at the full rate for 80 % of the training;
  then the target, with the whole decay of the rate in the epochs that are left. It needs five of
  six epochs of the target's training. On the three networks of benchmarks/training it reached more
  than the target's accuracy, on average over seeds, in less than half the time.
- ``progressive``: smaller images, which become larger in steps; in the last fifth of the training
  they have their full size, and the rate follows its schedule throughout ('progressive resizing').
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphscale.core.errors import GraphScaleError
from graphscale.rescaling.input_size import InputSize

_LARGEST_KERNEL = 127  # taps; larger kernels than this are not in use
_LEAVE_ALL: Mapping[int, int] = {size: size for size in range(1, _LARGEST_KERNEL + 1)}


@dataclass(frozen=True)
class RecipeStage:
    """One part of a training, in which the network and the image size stay the same.

    Attributes:
        until: The share of all epochs at which the stage ends; 1 for the last stage.
        kernels: Target kernel size -> pre-train kernel size, as for `shrink`; other sizes follow
            the paper's table.
        scale: Image size as a share of the target's; None leaves the size to `shrink`.
        target: Whether the stage trains the target itself; `kernels` and `scale` are not used then.
    """

    until: float
    kernels: Mapping[int, int] = field(default_factory=dict)
    scale: float | None = None
    target: bool = False

    def shrink_options(self, size: tuple[int, int]) -> dict[str, Any]:
        """Options of `shrink` for this stage of a target for images of this height and width."""
        scale = self.scale
        pretrain = tuple(max(1, round(n * scale)) for n in size) if scale is not None else None
        # The target's size is said, too: a network from an ONNX file may leave it open.
        return {"kernels": dict(self.kernels) or None, "input_size": InputSize(size, pretrain)}


@dataclass(frozen=True)
class Recipe:
    """A training as a list of stages.

    Attributes:
        name: Its name on the command line.
        stages: In their order; the last one trains the target.
        decay: 'throughout': the learning rate's schedule runs over all epochs. 'after growth': the
            rate stays at its full height until the last stage, over which the schedule runs.
        before_first_drop: If given, the first stage ends so many epochs before the first drop of
            the rate (the paper's rule), and its `until` is not used.
        length: The recipe's epochs as a share of those with which the target alone is trained.
    """

    name: str
    stages: tuple[RecipeStage, ...]
    decay: str = "throughout"
    before_first_drop: int | None = None
    length: float = 1.0

    def epochs(self, target_epochs: int) -> int:
        """The recipe's epochs where the target alone takes so many, at least one per stage."""
        return max(round(self.length * target_epochs), min(len(self.stages), target_epochs))

    def ends(self, epochs: int, milestones: tuple[int, ...] = ()) -> list[int]:
        """The number of epochs after which each stage ends; each stage has at least one epoch.

        Args:
            epochs: Of the whole training.
            milestones: The epochs after which the rate drops, for `before_first_drop`.

        Raises:
            GraphScaleError: the training has fewer epochs than the recipe has stages, or the recipe
                grows before a drop of the rate and there is none.
        """
        if epochs < len(self.stages):
            raise GraphScaleError(
                f"recipe {self.name!r} has {len(self.stages)} stages and the training only "
                f"{epochs} epochs; give more epochs or another recipe"
            )
        shares = [stage.until * epochs for stage in self.stages]
        if self.before_first_drop is not None:
            if not milestones:
                raise GraphScaleError(
                    f"recipe {self.name!r} grows before the first drop of the learning rate, and "
                    "this schedule has no drops; give --schedule steps or another recipe"
                )
            shares[0] = milestones[0] - self.before_first_drop
        ends: list[int] = []
        for index, share in enumerate(shares):
            first = ends[-1] + 1 if ends else 1
            ends.append(min(max(round(share), first), epochs - (len(shares) - 1 - index)))
        return ends


_TARGET = RecipeStage(1.0, target=True)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("target", (_TARGET,)),
        Recipe("paper", (RecipeStage(0.3), _TARGET), before_first_drop=1),
        Recipe(
            "late",
            (
                RecipeStage(0.3, _LEAVE_ALL, 0.5),
                RecipeStage(0.6, _LEAVE_ALL, 0.625),
                RecipeStage(0.8, _LEAVE_ALL, 0.75),
                _TARGET,
            ),
            decay="after growth",
            length=0.83,
        ),
        Recipe(
            "progressive",
            (
                *(
                    RecipeStage(until, _LEAVE_ALL, scale)
                    for until, scale in ((0.3, 0.5), (0.45, 0.625), (0.6, 0.75), (0.8, 0.875))
                ),
                _TARGET,
            ),
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        GraphScaleError: there is no such recipe; lists those that exist.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise GraphScaleError(f"unknown recipe {name!r}; use one of {', '.join(RECIPES)}")
    return RECIPES[name]
