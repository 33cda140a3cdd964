"""Let a shrunk module raise an error when it is called with images of another size.

In: the module, its plan and its example input. A network with global pooling runs on images of any
size; without this check, target-sized images would cost time and accuracy unnoticed. The check is a
forward pre-hook of the module, so it is copied and pickled with the module; growing removes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.modules.example import Example


class CheckImageSize:
    """Forward pre-hook: raises an error unless heights and widths are the pre-train network's.

    Args:
        sizes: (argument's position or keyword, axis, size) for each size that is checked.
    """

    def __init__(self, sizes: list[tuple[int | str, int, int]]) -> None:
        self.sizes = sizes

    def __call__(self, module: nn.Module, args: tuple, kwargs: Mapping | None = None) -> None:
        """Compare the arguments of a call with the sizes.

        Raises:
            GraphScaleError: an argument has another size; names the size that is expected.
        """
        for place, axis, size in self.sizes:
            if isinstance(place, str):
                given = (kwargs or {}).get(place)
            else:
                given = args[place] if place < len(args) else None
            if isinstance(given, torch.Tensor) and given.ndim > axis and given.shape[axis] != size:
                raise GraphScaleError(self._message(module, given, place))

    def _message(self, module: nn.Module, given: torch.Tensor, place: int | str) -> str:
        wanted = list(given.shape)
        for other, axis, size in self.sizes:
            if other == place:
                wanted[axis] = size
        return (
            f"{type(module).__name__} is a pre-train network and got an input of shape "
            f"{list(given.shape)} where it takes {wanted}; resize the images to "
            "graphscale_plan.image_size, or grow the network first"
        )


def check_image_size(module: nn.Module, plan: Plan, example: Example) -> None:
    """Register the check on `module`: the sizes that the plan changes, of each tensor argument.

    A check that is there already is replaced. Tensors inside nested arguments are not checked.
    """
    forget_image_size(module)
    inputs = iter(plan.inputs)
    sizes: list[tuple[int | str, int, int]] = []
    places = [*enumerate(example.args), *example.kwargs.items()]
    for place, value in places:
        if not isinstance(value, torch.Tensor):
            if Example.holds_tensors(value):
                break  # nested tensors are graph inputs too, so the order would be lost
            continue
        described = next(inputs, None)
        if described is None:
            break
        pairs = zip(described.target, described.pretrain)
        sizes += [
            (place, axis, after)
            for axis, (before, after) in enumerate(pairs)
            if isinstance(after, int) and before != after
        ]
    if sizes:
        module.register_forward_pre_hook(CheckImageSize(sizes), with_kwargs=bool(example.kwargs))


def copy_image_size(source: nn.Module, module: nn.Module) -> None:
    """Register the check of `source` on `module`, too."""
    for key, hook in source._forward_pre_hooks.items():
        if isinstance(hook, CheckImageSize):
            keywords = key in source._forward_pre_hooks_with_kwargs
            module.register_forward_pre_hook(CheckImageSize(hook.sizes), with_kwargs=keywords)


def forget_image_size(module: nn.Module) -> None:
    """Remove the check."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, CheckImageSize):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
