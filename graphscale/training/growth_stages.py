"""`GrowthStages`: several pre-train networks of one target, for growing in several steps.

In: the target and the options of each stage. Out: the pre-train module of the first stage, and for
each later stage a template without weights. `grow_(module, to=stage)` gives the layers of the
module the sizes of the template's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphscale.convert.network import Network
from graphscale.core.arguments import instance, whole_number, whole_numbers, wrong
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.modules.edit_layers import CropOutput, PadInput
from graphscale.modules.own_padding import follow_own_padding
from graphscale.modules.shrink import shrink_module
from graphscale.training.recipes import recipe

_OPTIONS = ("input_size", "kernels", "keep", "init", "seed")  # of shrink
# The modules of torch that define layers whose sizes a plan may change, and the only private
# attribute of such layers that depends on a size.
_SIZED = tuple(
    f"torch.nn.modules.{name}"
    for name in ("conv", "pooling", "padding", "upsampling", "linear", "normalization")
)
_PRIVATE = ("_reversed_padding_repeated_twice",)


@dataclass(frozen=True)
class GrowthStage:
    """A pre-train network on the way to the target.

    Attributes:
        plan: The plan that leads from this network to the target.
        template: A module of this network's sizes, with its weights on the meta device.
    """

    plan: Plan
    template: nn.Module

    @classmethod
    def of(cls, module: nn.Module) -> GrowthStage:
        """The stage of the pre-train network `module`, which `shrink` returned."""
        return cls(module.graphscale_plan, _template(module))


class GrowthStages:
    """The pre-train networks of one target, smallest first.

    Args:
        target: A torch module.
        example_input: As for `shrink`.
        options: Options of `shrink` for each stage, in the order of training. From stage to stage,
            image sizes and kernels may only become larger.

    Attributes:
        module: The pre-train network of the first stage, to be trained.
        later: The other stages, for `grow_(module, to=...)`. Without `to`, `grow_` leads from any
            stage to the target.
        total, grow_at: The training's length and the times of growth, from `of_recipe`; without a
            recipe 0 and empty.

    Raises:
        GraphScaleError: no stage is given, or the target's class cannot take the sizes of a stage.

    Example:
        >>> import torch, graphscale
        >>> from graphscale.training import GrowthStages
        >>> target = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU())
        >>> options = [{"input_size": 48}, {"input_size": 56, "kernels": {5: 5}}]
        >>> stages = GrowthStages(target, torch.randn(2, 3, 64, 64), options)
        >>> module = stages.module
        >>> _ = graphscale.grow_(module, to=stages.later[0])
        >>> _ = graphscale.grow_(module)
    """

    @classmethod
    def of_recipe(
        cls,
        name: str,
        target: nn.Module,
        example_input: torch.Tensor,
        *,
        units: int,
        milestones: Sequence[int] = (),
    ) -> GrowthStages:
        """The stages of a recipe of `graphscale train`, such as 'late', for your own loop.

        The result's `total` and `grow_at` are the arguments of these names of `GrowthSchedule`.

        Args:
            name: 'late', 'progressive' or 'paper'.
            target: A torch module.
            example_input: A tensor (N, C, H, W) of the target's size.
            units: Epochs or steps for which the target alone would be trained; 'late' needs five
                of six of them.
            milestones: The units after which the rate drops, for 'paper'.

        Raises:
            GraphScaleError: the recipe is unknown, has no growth, or has more stages than there are
                units; or as for the class.
        """
        chosen = recipe(name)
        instance("target", target, nn.Module, "a torch module")
        instance("example_input", example_input, torch.Tensor, "a tensor (N, C, H, W)")
        units = whole_number("units", units, 1)
        if example_input.dim() != 4:
            shape = "×".join(map(str, example_input.shape))
            raise GraphScaleError(f"example_input has the shape {shape}; give (N, C, H, W)")
        if not isinstance(milestones, Sequence) or milestones:
            milestones = whole_numbers("milestones", milestones, "units after which the rate drops")
        if len(chosen.stages) == 1:
            raise GraphScaleError(
                f"recipe {name!r} trains the target alone and has no growth; give another recipe"
            )
        total = chosen.epochs(units)
        grow_at = chosen.ends(total, tuple(milestones))[:-1]
        height, width = example_input.shape[2:]
        options = [each.shrink_options((height, width)) for each in chosen.stages[:-1]]
        stages = cls(target, example_input, options)
        stages.total, stages.grow_at = total, grow_at
        return stages

    def __init__(
        self, target: nn.Module, example_input: Any, options: Sequence[Mapping[str, Any]]
    ) -> None:
        wanted = "a list with the options of shrink for each stage, as [{'input_size': 48}]"
        if isinstance(options, Mapping) or not isinstance(options, Sequence):
            raise wrong("GrowthStages: options", options, wanted)
        if not options:
            raise GraphScaleError(
                "GrowthStages: no stage is given; give options of shrink for each"
            )
        instance("GrowthStages: target", target, nn.Module, "a torch module")
        for each in options:
            instance("GrowthStages: options", each, Mapping, wanted)
            unknown = [key for key in each if key not in _OPTIONS]
            if unknown:
                raise wrong(
                    "GrowthStages: a key of options", unknown[0], f"one of {', '.join(_OPTIONS)}"
                )
        modules = [shrink_module(target, example_input, **each) for each in options]
        for each in modules:
            if len(modules) > 1 and isinstance(each, Network):
                raise GraphScaleError(
                    f"{type(target).__name__} cannot take the sizes of a stage; grow it in one step"
                )
        self.total = 0
        self.grow_at: list[int] = []
        self.module = modules[0]
        self.later = [GrowthStage.of(each) for each in modules[1:]]


def copy_layer_sizes(module: nn.Module, template: nn.Module) -> None:
    """Give the layers of `module` the kernel sizes, paddings and hooks of the template's layers.

    Raises:
        GraphScaleError: the template has a layer of another class, or one that the module lacks.
    """
    layers = dict(module.named_modules())
    for path, source in template.named_modules():
        layer = layers.get(path)
        if layer is not None:
            follow_own_padding(layer, source)
        if type(layer) is not type(source):
            raise GraphScaleError(
                f"layer {path!r} of the stage is a {type(source).__name__}, the module's a "
                f"{type(layer).__name__}; give a stage of the module's own target"
            )
        if not any(kind.__module__ in _SIZED for kind in type(source).__mro__):
            continue
        for key, value in vars(source).items():
            plain = not key.startswith("_") and key != "training" and _is_setting(value)
            if plain or key in _PRIVATE:
                setattr(layer, key, copy.copy(value))
        for hooks, kind in (("_forward_pre_hooks", PadInput), ("_forward_hooks", CropOutput)):
            own = getattr(layer, hooks)
            for key in [key for key, hook in own.items() if isinstance(hook, kind)]:
                del own[key]
            for hook in getattr(source, hooks).values():
                if isinstance(hook, kind):
                    register = {
                        PadInput: layer.register_forward_pre_hook,
                        CropOutput: layer.register_forward_hook,
                    }[kind]
                    register(copy.copy(hook))


def _is_setting(value: object) -> bool:
    """Whether an attribute of a layer is a number, a text, None or a sequence of numbers."""
    if isinstance(value, tuple | list):
        return all(each is None or isinstance(each, int | float) for each in value)
    return value is None or isinstance(value, int | float | str)


def _template(module: nn.Module) -> nn.Module:
    """A copy of the module with all tensors on the meta device, where they take no memory."""
    memo = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), parameter.requires_grad
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)
