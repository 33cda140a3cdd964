"""Several stages of growth: a chain of pre-train networks of one target.

In: the target and the options of each stage. Out: the first pre-train network, and for every later
stage a template without weights, whose numbers `grow_(module, to=stage)` gives to the layers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphscale.convert.network import Network
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.modules.edit_layers import CropOutput, PadInput
from graphscale.modules.shrink import shrink_module

# torch's files of the layers whose sizes follow a plan, and their one private attribute that does.
_SIZED = tuple(
    f"torch.nn.modules.{name}"
    for name in ("conv", "pooling", "padding", "upsampling", "linear", "normalization")
)
_PRIVATE = ("_reversed_padding_repeated_twice",)


@dataclass(frozen=True)
class GrowthStage:
    """A pre-train network on the way to the target.

    Attributes:
        plan: Its plan.
        template: The module at this stage, its weights on the meta device.
    """

    plan: Plan
    template: nn.Module

    @classmethod
    def of(cls, module: nn.Module) -> GrowthStage:
        """The stage whose network `module` is, as `shrink` made it."""
        return cls(module.graphscale_plan, _template(module))


class GrowthStages:
    """The pre-train networks of one target, smallest first.

    Args:
        target: A torch module.
        example_input: As for `shrink`.
        options: Options of `shrink` for each stage, in the order of training; sizes and kernels may
            only grow.

    Attributes:
        module: The pre-train network of the first stage, to be trained.
        later: The further stages, for `grow_(module, to=...)`; growth without `to` leads from any
            of them to the target.

    Raises:
        GraphScaleError: a stage cannot be shrunk in place.

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

    def __init__(
        self, target: nn.Module, example_input: Any, options: Sequence[Mapping[str, Any]]
    ) -> None:
        if not options:
            raise GraphScaleError(
                "GrowthStages: no stage is given; give options of shrink for each"
            )
        modules = [shrink_module(target, example_input, **each) for each in options]
        for each in modules:
            if len(modules) > 1 and isinstance(each, Network):
                raise GraphScaleError(
                    f"{type(target).__name__} cannot take the numbers of a stage; grow it in one "
                    "step"
                )
        self.module = modules[0]
        self.later = [GrowthStage.of(each) for each in modules[1:]]


def copy_layer_sizes(module: nn.Module, template: nn.Module) -> None:
    """Give the layers of `module` the kernel sizes, paddings and hooks of `template`'s.

    Raises:
        GraphScaleError: the modules have other layers.
    """
    layers = dict(module.named_modules())
    for path, source in template.named_modules():
        layer = layers.get(path)
        if type(layer) is not type(source):
            raise GraphScaleError(
                f"layer {path!r} of the stage is a {type(source).__name__}, the module's a "
                f"{type(layer).__name__}; give a stage of the module's own target"
            )
        if not any(kind.__module__ in _SIZED for kind in type(source).__mro__):
            continue
        for key, value in vars(source).items():
            plain = not key.startswith("_") and key != "training" and _is_numbers(value)
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


def _is_numbers(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(each is None or isinstance(each, int | float) for each in value)
    return value is None or isinstance(value, int | float | str)


def _template(module: nn.Module) -> nn.Module:
    """A copy of the module that takes no memory for weights."""
    memo = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), parameter.requires_grad
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)
