"""The ways to train that the experiment compares: each a recipe, a schedule, a number of epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from graphscale.training.recipes import RECIPES, Recipe, RecipeStage

_LEAVE_3 = {3: 3}
_LEAVE_ALL = {size: size for size in range(1, 32)}
_TARGET = RecipeStage(1.0, target=True)
_STAGES = Recipe(
    "stages", (RecipeStage(0.5), RecipeStage(0.75, _LEAVE_3), _TARGET), decay="after growth"
)

_EARLIER = replace(  # 'late' with fewer epochs of small images and more of the target
    RECIPES["late"],
    stages=tuple(
        replace(stage, until=until)
        for stage, until in zip(RECIPES["late"].stages, (0.25, 0.5, 0.7, 1.0))
    ),
)


@dataclass(frozen=True)
class Variant:
    """One way to train: a recipe, a schedule, its share of the target's epochs, how it grows."""

    recipe: Recipe
    schedule: str = "linear"
    share: float = 1.0
    growth: Mapping[str, str] = field(default_factory=dict)


def _two(share: float, kernels: dict[int, int], decay: str = "after growth") -> Recipe:
    return Recipe("two stages", (RecipeStage(share, kernels), _TARGET), decay)


# In the order in which they are trained: the most telling ones first.
VARIANTS = {
    "target": Variant(RECIPES["target"], "steps"),
    "late-leave-3": Variant(_two(0.7, _LEAVE_3)),
    "late-paper-kernels": Variant(_two(0.7, {})),
    "target-compressed": Variant(RECIPES["target"], share=0.5),
    "progressive": Variant(RECIPES["progressive"]),
    "late-leave-3-0.75": Variant(_two(0.7, _LEAVE_3), share=0.75),
    "late": Variant(RECIPES["late"], share=RECIPES["late"].length),
    "earlier": Variant(_EARLIER, share=RECIPES["late"].length),
    "earlier-0.75": Variant(_EARLIER, share=0.75),
    "target-linear": Variant(RECIPES["target"]),
    "progressive-0.83": Variant(RECIPES["progressive"], share=0.83),
    "late-images-0.75": Variant(_two(0.7, _LEAVE_ALL), share=0.75),
    "stages": Variant(_STAGES),
    "late-paper-kernels-0.83": Variant(_two(0.7, {}), share=0.83),
    "paper": Variant(RECIPES["paper"], "steps"),
    "stages-0.83": Variant(_STAGES, share=0.83),
    "later-leave-3-0.83": Variant(_two(0.8, _LEAVE_3), share=0.83),
    "target-compressed-steps": Variant(RECIPES["target"], "steps", 0.5),
    "late-images": Variant(_two(0.7, _LEAVE_ALL)),
    "late-as-scheduled": Variant(_two(0.7, {}, "throughout"), "steps"),
    # What grow_ does to the optimizer's state and to amplitudes, where all kernels grow.
    "short": Variant(_two(0.7, {}), share=0.5),
    "short-reset": Variant(_two(0.7, {}), share=0.5, growth={"optimizer_state": "reset"}),
    "short-norm": Variant(_two(0.7, {}), share=0.5, growth={"amplitude": "norm"}),
}


def stage_name(stage: RecipeStage) -> str:
    """A name of what a stage trains: two stages of one name train networks of the same shapes."""
    if stage.target:
        return "target"
    if len(stage.kernels) > 8:
        kernels = "all kernels left"
    elif stage.kernels:
        kernels = f"{', '.join(map(str, stage.kernels))} left"
    else:
        kernels = "paper's kernels"
    return kernels if stage.scale is None else f"{kernels}, images x {stage.scale:g}"


def stages_name(names: Iterable[str]) -> str:
    """A name of a list of stages: recipes of one name shrink and grow the same networks."""
    return " -> ".join(names)
