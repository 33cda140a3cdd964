"""The networks of a recipe's stages: shrunk from one target, and grown from stage to stage.

In: the target, an example input and a recipe. Out: the network and the image size of each stage.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from graphscale.convert.network import Network
from graphscale.modules.grow import grow_module
from graphscale.modules.shrink import shrink_module
from graphscale.training.grow_in_place import grow_
from graphscale.training.growth_stages import GrowthStage
from graphscale.training.recipes import Recipe


class RescaledNetworks:
    """Shrinks a target for each stage of a recipe, and grows networks between stages.

    Args:
        target: The target network; it is not changed.
        example: A float tensor (1, C, H, W) of the target's size.
        recipe: The recipe.
        seed: For fresh weights.
        optimizer_state, amplitude: How `grow_` grows in place.
    """

    def __init__(
        self,
        target: nn.Module,
        example: torch.Tensor,
        recipe: Recipe,
        seed: int = 0,
        *,
        optimizer_state: str = "resize",
        amplitude: str = "response",
    ) -> None:
        self.target = target
        self.example = example
        self.recipe = recipe
        self.seed = seed
        self._growth = {"optimizer_state": optimizer_state, "amplitude": amplitude}
        self._sizes: dict[int, tuple[int, int]] = {}

    def size(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's images."""
        if stage not in self._sizes:
            if self.recipe.stages[stage].target:
                self._sizes[stage] = _pair(self.example.shape[2:])
            else:
                self._shrunk(stage, self.target)  # which notes the size
        return self._sizes[stage]

    def first(self, stage: int) -> nn.Module:
        """A new network for a stage, with weights as `shrink` makes them from the target's."""
        if self.recipe.stages[stage].target:
            return copy.deepcopy(self.target)
        return self._shrunk(stage, self.target)

    def grow(self, network: nn.Module, stage: int, optimizer: torch.optim.Optimizer) -> nn.Module:
        """Grow a stage's network to the next stage's; in place if possible.

        An imported graph can only grow to the target. For a stage before the target it is grown to
        the target and shrunk again, and the result is another object.
        """
        following = self.recipe.stages[stage + 1]
        if following.target:
            return grow_(network, optimizers=optimizer, **self._growth)
        if isinstance(network, Network):
            return self._shrunk(stage + 1, grow_module(network), init="resize")
        made = self._shrunk(stage + 1, self.target)
        return grow_(network, to=GrowthStage.of(made), optimizers=optimizer, **self._growth)

    def _shrunk(self, stage: int, network: nn.Module, init: str | None = None) -> nn.Module:
        made = shrink_module(network, self.example, **self._options(stage), init=init)
        self._sizes[stage] = _pair(made.graphscale_plan.image_size)
        return made

    def _options(self, stage: int) -> dict[str, Any]:
        size = _pair(self.example.shape[2:])
        return {**self.recipe.stages[stage].shrink_options(size), "seed": self.seed}


def _pair(sizes: Any) -> tuple[int, int]:
    height, width = sizes
    return int(height), int(width)
