"""`whole_parameters`: give a sharded module whole, plain parameters for as long as it grows.

In: modules whose parameters are DTensors, sharded by FSDP2 (`fully_shard`) or by tensor
parallelism, and their optimizers. Inside the context every rank has all parameters and all of the
optimizers' state as plain tensors. Out: the same modules and optimizers, sharded as before,
whatever sizes the parameters have got.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphscale.core.errors import GraphScaleError


@contextmanager
def whole_parameters(
    modules: Sequence[nn.Module], optimizers: Iterable[Optimizer]
) -> Iterator[None]:
    """A context in which no parameter of `modules` is sharded; to be entered on every rank.

    The Parameter objects are others inside, and others again afterwards; modules and optimizers
    hold them. A rank needs memory for all parameters and all of the optimizers' state.

    Raises:
        GraphScaleError: this version of torch keeps FSDP's parameters in another way.
    """
    places = [place for module in modules for place in _places(module)]
    if not places:
        yield
        return
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for place in places:
        sharded = place.parameter
        whole[sharded] = nn.Parameter(
            sharded.detach().full_tensor().clone(), requires_grad=sharded.requires_grad
        )
    optimizers = list(optimizers)
    _gather_states(optimizers, whole)
    for place in places:
        place.put(whole[place.parameter])
    try:
        yield
    finally:
        again = {whole[place.parameter]: place.shard(whole[place.parameter]) for place in places}
        _shard_states(optimizers, again)


class _TensorParallel:
    """Where a module holds a DTensor that FSDP knows nothing of."""

    def __init__(self, owners: list[tuple[nn.Module, str]], parameter: nn.Parameter) -> None:
        self.owners = owners
        self.parameter = parameter
        self.layout = parameter.device_mesh, parameter.placements

    def put(self, parameter: nn.Parameter) -> None:
        for owner, name in self.owners:
            owner._parameters[name] = parameter

    def shard(self, whole: nn.Parameter) -> nn.Parameter:
        result = nn.Parameter(_sharded(whole.detach(), *self.layout), whole.requires_grad)
        self.put(result)
        return result


class _FullyShard:
    """A parameter of FSDP2."""

    def __init__(self, fsdp_param: Any) -> None:
        self.fsdp_param = fsdp_param
        self.parameter = fsdp_param.sharded_param

    def put(self, parameter: nn.Parameter) -> None:
        info = self.fsdp_param._module_info
        info.module._parameters[info.param_name] = parameter
        for owner, name in zip(info.shared_modules, info.shared_param_names):
            owner._parameters[name] = parameter

    def shard(self, whole: nn.Parameter) -> nn.Parameter:
        held, spec = self.fsdp_param, self.fsdp_param._unsharded_dtensor_spec
        if getattr(held, "is_dtensor", False):  # tensor-parallel inside FSDP
            whole = nn.Parameter(
                _sharded(whole.detach(), spec.mesh, spec.placements), whole.requires_grad
            )
        placement = held.fsdp_placement
        given = [whole, held.device, lambda parameter: placement]
        if "mesh_info" in inspect.signature(held._init_sharded_param).parameters:
            given.append(held.mesh_info)  # of newer versions of torch
        held._init_sharded_param(*given)
        if held.post_forward_mesh_info:
            held._init_sharded_post_forward_param_metadata(whole)
        # Buffers of the old size, which FSDP makes again when they are missing.
        held.all_gather_outputs = []
        held.unsharded_accumulated_grad = None
        vars(held).pop("_unsharded_param", None)
        return held.sharded_param


def _places(module: nn.Module) -> list[_FullyShard | _TensorParallel]:
    """Every sharded parameter of `module`, in the same order on every rank."""
    if not any(_is_sharded(parameter) for parameter in module.parameters()):
        return []
    try:
        found: list = [_FullyShard(each) for each in _fsdp_params(module)]
    except AttributeError as error:
        raise GraphScaleError(
            f"{type(module).__name__} is sharded by FSDP of a torch that graphscale does not know "
            f"({error}); gather its full state dict, grow it by graphscale.grow(state_dict, "
            "target=module), and shard the result"
        ) from None
    known = {place.parameter for place in found}
    owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for layer in module.modules():
        for name, parameter in layer._parameters.items():
            if parameter is not None and _is_sharded(parameter) and parameter not in known:
                owners.setdefault(parameter, []).append((layer, name))
    return found + [_TensorParallel(each, parameter) for parameter, each in owners.items()]


def _is_sharded(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "placements")


def _fsdp_params(module: nn.Module) -> list[Any]:
    """FSDP2's objects for the parameters of `module`, after everything is in its sharded state."""
    try:
        from torch.distributed.fsdp import FSDPModule
    except ImportError:  # there was no FSDP2 to shard it
        return []
    found = []
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
            state = part._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None)
            if groups is None:
                groups = [state._fsdp_param_group]
            found += [each for group in groups if group is not None for each in group.fsdp_params]
    return found


def _sharded(tensor: torch.Tensor, mesh: Any, placements: Sequence[Any]) -> torch.Tensor:
    """Every rank has all of `tensor`, and keeps its own part: nothing is sent."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    whole = distribute_tensor(tensor, mesh, [Replicate()] * mesh.ndim, src_data_rank=None)
    return whole.redistribute(mesh, placements)


def _gather_states(
    optimizers: Iterable[Optimizer], whole: dict[nn.Parameter, nn.Parameter]
) -> None:
    """Give the optimizers the whole parameters, and these their state in whole tensors."""
    for optimizer in optimizers:
        _replace(optimizer, whole)
        for old, new in whole.items():
            if old in optimizer.state:
                state = optimizer.state.pop(old)
                optimizer.state[new] = {
                    key: value.full_tensor() if _has_placements(value) else value
                    for key, value in state.items()
                }


def _shard_states(optimizers: Iterable[Optimizer], again: dict[nn.Parameter, nn.Parameter]) -> None:
    """Give the optimizers the sharded parameters, and these their state, sharded alike."""
    for optimizer in optimizers:
        _replace(optimizer, again)
        for old, new in again.items():
            if old in optimizer.state:
                state = optimizer.state.pop(old)
                optimizer.state[new] = {
                    key: _sharded(value, new.device_mesh, new.placements)
                    if isinstance(value, torch.Tensor) and value.shape == new.shape
                    else value
                    for key, value in state.items()
                }


def _has_placements(value: object) -> bool:
    return isinstance(value, torch.Tensor) and hasattr(value, "placements")


def _replace(optimizer: Optimizer, others: dict[nn.Parameter, nn.Parameter]) -> None:
    for group in optimizer.param_groups:
        group["params"][:] = [others.get(each, each) for each in group["params"]]
