"""Grow the state that optimizers keep per parameter: momenta and second moments.

In: optimizers and, for each grown parameter, its `WeightMap`. Out: the new state of those
parameters, as a list. `grown_states` changes nothing; `put_states` assigns the list and cannot
fail.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch.optim import Optimizer

from graphscale.core.errors import GraphScaleError, about
from graphscale.training.weight_maps import WeightMap

# Keys of state tensors that have the parameter's shape, in torch's and timm's optimizers, by how
# they grow: by the weights' linear map, by the squared map, or by the root of the squared map.
LINEAR = frozenset(
    {
        *("momentum_buffer", "exp_avg", "grad_avg", "ax"),  # SGD, Adam, RMSprop, ASGD
        *("exp_avg_diff", "neg_pre_grad", "lookahead_slow_buff"),  # timm's Adan, Lookahead
    }
)
SQUARED = frozenset(
    {
        *("exp_avg_sq", "max_exp_avg_sq"),  # Adam
        *("square_avg", "acc_delta", "sum"),  # RMSprop, Adadelta, Adagrad
        *("exp_avg_var", "max_exp_avg_var"),  # AdaBelief
    }
)
ROOT_SQUARED = frozenset({"exp_inf"})  # Adamax: the gradient's absolute value, not its square

_WRAPPED = ("optimizer", "base_optimizer", "_base_optimizer")  # where wrappers hold the optimizer

NewState = tuple[Optimizer, torch.nn.Parameter, dict | None]


def plain_optimizer(optimizer: object) -> Optimizer:
    """The torch optimizer inside wrappers, such as Accelerate's, Lightning's and timm's Lookahead.

    Raises:
        GraphScaleError: it is no torch optimizer, or it does not keep its state per parameter.
    """
    inner = optimizer
    while True:
        parts = (getattr(inner, name, None) for name in _WRAPPED)
        within = next((part for part in parts if isinstance(part, Optimizer)), None)
        if within is None:
            break
        inner = within
    if not isinstance(inner, Optimizer):
        raise GraphScaleError(
            f"optimizers: {type(optimizer).__name__} is no torch optimizer; give torch.optim ones"
        )
    if isinstance(inner, torch.optim.LBFGS):
        raise GraphScaleError(
            "optimizers: LBFGS keeps vectors over all parameters together, which cannot grow; "
            "leave it out and make a new one after growth"
        )
    return inner


def grown_states(
    optimizers: Iterable[Optimizer],
    maps: Mapping[torch.nn.Parameter, WeightMap],
    parameters: Iterable[torch.nn.Parameter],
    mode: str,
) -> list[NewState]:
    """The new state of every grown parameter in every optimizer.

    Args:
        optimizers: Torch optimizers, without wrappers.
        maps: The grown parameters, with their maps.
        parameters: All parameters of the module, to recognise an optimizer of another module.
        mode: 'resize' or 'reset'.

    Returns:
        (optimizer, parameter, its new state, or None for no state) for each.

    Raises:
        GraphScaleError: an optimizer holds none of the module's parameters.
    """
    own = set(parameters)
    result: list[NewState] = []
    for optimizer in optimizers:
        held = {p: group for group in optimizer.param_groups for p in group["params"]}
        if not own & held.keys():
            raise GraphScaleError(
                f"optimizers: {type(optimizer).__name__} holds none of the module's parameters; "
                "give the optimizer that trains this module"
            )
        without_rule: dict[str, list[str]] = {}
        for parameter, weight_map in maps.items():
            if parameter not in held or parameter not in optimizer.state:
                continue
            state = dict(optimizer.state[parameter])
            unknown = [] if mode == "reset" else _unknown(state, parameter)
            for key in unknown:
                without_rule.setdefault(key, []).append(weight_map.name)
            if mode == "reset" or unknown:
                new = _fresh(optimizer, held[parameter], state, weight_map)
            else:
                with about(f"{type(optimizer).__name__}'s state"):
                    new = _grown(state, parameter, weight_map)
            result.append((optimizer, parameter, new))
        for key, names in without_rule.items():
            warnings.warn(
                f"{type(optimizer).__name__}: its state {key!r} has no rule of growth; the state "
                f"of {', '.join(names)} is reset",
                stacklevel=4,
            )
    return result


def put_states(states: Iterable[NewState]) -> None:
    """Give the optimizers the states that `grown_states` made."""
    for optimizer, parameter, state in states:
        if state is None:
            optimizer.state.pop(parameter)
        else:
            held = optimizer.state[parameter]
            held.clear()
            held.update(state)


def _is_elementwise(value: object, parameter: torch.Tensor) -> bool:
    dense = isinstance(value, torch.Tensor) and value.layout is torch.strided
    return dense and value.shape == parameter.shape


def _unknown(state: Mapping[str, object], parameter: torch.Tensor) -> list[str]:
    """Keys of the state's tensors that have more than one element and no rule of growth."""
    names = []
    for key, value in state.items():
        if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
            names.append(key)
        elif isinstance(value, torch.Tensor) and value.numel() > 1:
            known = key in LINEAR | SQUARED | ROOT_SQUARED
            if not (known and _is_elementwise(value, parameter)):
                names.append(key)
    return names


def _grown(state: Mapping, parameter: torch.Tensor, weight_map: WeightMap) -> dict[str, object]:
    """The state with each tensor of the parameter's shape mapped by its rule."""
    new = dict(state)
    for key, value in state.items():
        if not _is_elementwise(value, parameter):
            continue
        if key in LINEAR:
            grown = weight_map(value)
        elif key == "square_avg" and "grad_avg" in state:
            # Centered RMSprop takes the root of square_avg - grad_avg², which must stay positive:
            # the variance grows, not the second moment.
            mean = state["grad_avg"]
            variance = weight_map((value - mean.square()).clamp(min=0), squared=True)
            grown = variance + weight_map(mean).square()
        elif key in SQUARED:
            grown = weight_map(value, squared=True)
        else:
            grown = weight_map(value.square(), squared=True).sqrt()
        new[key] = like(grown, value)
    return new


def _fresh(
    optimizer: Optimizer, group: Mapping, state: Mapping, weight_map: WeightMap
) -> dict | None:
    """The state of a parameter before its first step: none, but for torch's Adagrad."""
    if not isinstance(optimizer, torch.optim.Adagrad):
        return None
    accumulated = state["sum"].new_full(weight_map.after, group["initial_accumulator_value"])
    return {"step": torch.zeros_like(state["step"]), "sum": accumulated}


def like(new: torch.Tensor, old: torch.Tensor, channels_last: bool = False) -> torch.Tensor:
    """`new` in the memory format of `old`.

    Where `old` fits both formats (one channel or one tap), `channels_last` decides.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(new.ndim)
    if wanted is None or not old.is_contiguous(memory_format=wanted):
        return new.contiguous()
    follows = channels_last or not old.is_contiguous()
    return new.contiguous(memory_format=wanted) if follows else new.contiguous()
