"""Grow a state dict of a pre-train module, without the module that wrote it.

In: a state dict, or a trainer's checkpoint that holds one, and a module of the target network. Out:
a copy of that module with the grown weights.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import torch
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.core.state_dicts import StateDict, state_dicts
from graphscale.modules.grow import grow_module
from graphscale.modules.module_state import copy_without_weights, tensors_of, unwrapped


def grow_state_dict(
    checkpoint: Mapping,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: object = None,
    resize: str = "bilinear",
) -> nn.Module:
    """The target with the grown weights of a pre-train module's state dict.

    Args:
        checkpoint: `module.state_dict()`, also of a wrapper, or a trainer's checkpoint with one
            such state dict in it.
        plan: The plan, or its file, where the state dict has lost it.
        target: A module of the target network; it is not changed.
        resize: As for `grow_module`.

    Returns:
        A copy of `target` with the grown weights.

    Raises:
        GraphScaleError: no target is given, or the checkpoint holds no state dict of its pre-train
            network, or several.
    """
    if not isinstance(target, nn.Module):
        raise GraphScaleError(
            "a state dict holds weights, but no module; give a module of the target network as "
            "target"
        )
    inner = unwrapped(target)
    own = inner.state_dict()
    found = _state_dict(checkpoint, own.keys())
    plan = Plan.given(plan)
    if plan is None and found.plan is not None:
        plan = Plan.from_json(found.plan, "the state dict: its plan")
    given = {
        name.removeprefix(found.prefix): tensor
        for name, tensor in found.values.items()
        if isinstance(name, str) and name.startswith(found.prefix)
    }
    missing, unexpected = own.keys() - given.keys(), given.keys() - own.keys()
    if missing or unexpected:
        name = min(missing or unexpected)
        side = "lacks" if missing else "has besides the target's keys"
        raise GraphScaleError(
            f"{type(inner).__name__}: the state dict is of another network (it {side} {name!r}); "
            "give a module of the target that was shrunk"
        )
    pretrain = copy_without_weights(inner, own)
    named = tensors_of(pretrain)
    for name, tensor in given.items():
        if isinstance(tensor, torch.Tensor) and name in named:
            _check_numbers(name, tensor, named[name])
            named[name].data = tensor.detach().to(named[name])
    try:
        return grow_module(pretrain, plan=plan, target=inner, resize=resize)
    except GraphScaleError as error:
        if plan is not None:
            raise
        raise GraphScaleError(
            f"{error} (the state dict has lost its plan, as a copy by a dict comprehension or a "
            "safetensors file does; plan.save(path) writes the plan of the shrunk module)"
        ) from None


def _check_numbers(name: str, tensor: torch.Tensor, own: torch.Tensor) -> None:
    """Raise where a tensor of the state dict cannot take the place of the module's own."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "sparse"
    elif tensor.is_meta and not own.is_meta:
        kind = "meta"
    elif tensor.is_complex() and not own.is_complex():
        kind = "complex"
    else:
        return
    raise GraphScaleError(
        f"the state dict's {name!r} is a {kind} tensor; give one that holds the weights as numbers "
        "that were trained"
    )


def _state_dict(checkpoint: Mapping, names: Collection[str]) -> StateDict:
    """The one state dict in the checkpoint that holds a pre-train network's weights."""
    found = list(state_dicts(checkpoint))
    planned = [each for each in found if each.plan is not None]
    if not planned:  # the plan was lost: take the one with the target's names, after any prefix
        for each in found:
            ends = ({key[: -len(n)] for key in each.values if key.endswith(n)} for n in names)
            prefixes = set.intersection(*ends) if names else set()
            planned += [StateDict(each.path, p, None, each.values) for p in sorted(prefixes)[:1]]
    if len(planned) == 1:
        return planned[0]
    if not planned:
        raise GraphScaleError(
            "the checkpoint holds no state dict with the target's weights; give the state dict of "
            "the pre-train module"
        )
    places = ", ".join(
        "".join(f"[{key!r}]" for key in each.path) or each.prefix for each in planned
    )
    raise GraphScaleError(
        f"the checkpoint holds several state dicts of pre-train networks: {places}; give one of "
        "them"
    )
