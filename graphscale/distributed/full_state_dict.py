"""Checkpoints that do not depend on the number of ranks: whole weights and optimizer state.

In: a module some of whose layers are split over ranks, by `ModelParallel`, `PipelineParallel`,
tensor parallelism or `fully_shard`, and its optimizer. Out: state dicts as the whole module in one
process has them, in the form of torch.distributed.checkpoint.state_dict with full_state_dict and
cpu_offload: names instead of numbers in the optimizer's, and all of it on the first rank alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.optim import Optimizer

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.collectives import all_gather_single
from graphscale.distributed.model_parallel import ModelParallel
from graphscale.distributed.one_bit_data_parallel import OneBitDataParallel
from graphscale.distributed.one_bit_sgd import OneBitSGD
from graphscale.distributed.pipeline_parallel import PipelineParallel
from graphscale.distributed.require_process_group import require_process_group
from graphscale.distributed.split_layers import SplitHierarchicalSoftmax, SplitLookupTable
from graphscale.modules.module_state import unwrapped

StateDict = dict[str, Any]


def get_full_state_dict(
    module: nn.Module, optimizer: Optimizer | None = None
) -> tuple[StateDict, StateDict]:
    """The state of the whole module and of its optimizer, on the CPU of rank 0.

    Call it on every rank; the others get empty dicts. Names are those of the module before it was
    wrapped and split, so that the whole module can load the first dict by `load_state_dict`, and
    `torch.distributed.checkpoint.state_dict.set_state_dict` both. Needs memory for one whole weight
    on every rank, and for all of them on rank 0.

    Args:
        module: Holds split layers or containers of this library, or is one.
        optimizer: Any torch.optim optimizer of the module's parameters.

    Returns:
        The module's state dict, and the optimizer's (empty without an optimizer).

    Raises:
        GraphScaleError: there is no process group, the optimizer is a OneBitSGD, or one of its
            parameters is none of the module.

    Example:
        >>> weights, moments = get_full_state_dict(module, optimizer)  # doctest: +SKIP
        >>> if rank == 0:  # doctest: +SKIP
        ...     torch.save({"weights": weights, "moments": moments}, "checkpoint.pt")
    """
    require_process_group("get_full_state_dict")
    _refuse_own_state(optimizer)
    places = _Places(module)
    state = {
        places.names[key]: _whole(value, places.of_key.get(key))
        for key, value in module.state_dict().items()
    }
    states: StateDict = {}
    if optimizer is not None:
        groups = [
            {**group, "params": [places.name(parameter) for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        states = {"state": {}, "param_groups": groups}
        for parameter, name in places.named.items():
            if parameter in optimizer.state:
                states["state"][name] = {
                    key: _whole(
                        value, places.of.get(parameter) if _alike(value, parameter) else None
                    )
                    for key, value in optimizer.state[parameter].items()
                }
    for group in places.pipelines:
        state, states = _joined_stages(state, states, group)
    return (state, states) if dist.get_rank() == 0 else ({}, {})


def set_full_state_dict(
    module: nn.Module,
    optimizer: Optimizer | None,
    module_state: Mapping[str, Any],
    optimizer_state: Mapping[str, Any] | None = None,
) -> None:
    """Load what `get_full_state_dict` returned, on any number of ranks; nothing is sent.

    Args:
        module, optimizer: Split over ranks in any way; changed in place.
        module_state, optimizer_state: The whole ones, on every rank, as from
            torch.load(file, mmap=True). Those of torch.distributed.checkpoint.state_dict will do.

    Raises:
        GraphScaleError: a weight is missing or has another shape, or the optimizer has other
            groups.
    """
    require_process_group("set_full_state_dict")
    _refuse_own_state(optimizer)
    places = _Places(module)
    state = {}
    for key, held in module.state_dict().items():
        name = places.names[key]
        if name not in module_state:
            raise GraphScaleError(
                f"set_full_state_dict: the checkpoint lacks {name!r}; load the checkpoint of this "
                "network"
            )
        state[key] = _own(name, module_state[name], held, places.of_key.get(key))
    module.load_state_dict(state)
    if optimizer is not None:
        optimizer.load_state_dict(_own_states(optimizer, optimizer_state or {}, places))


@dataclass
class _Rows:
    """The rows of a tensor that this rank has, those of all ranks, and which ranks these are."""

    own: slice
    whole: int
    group: dist.ProcessGroup


class _Places:
    """Where the tensors of a module belong in the whole module.

    Attributes:
        names: The whole module's name for each key of the state dict.
        named: The whole module's name for each parameter.
        of_key, of: For keys, and for parameters, the rows of those that are split by rows.
        pipelines: The groups over which layers are split by stage.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = dict(module.named_modules(remove_duplicate=False))
        paths = {"": ""}
        for path in layers:
            if path:
                parent, _, leaf = path.rpartition(".")
                inside = leaf in ("module", "_orig_mod") and _is_wrapper(layers[parent])
                paths[path] = paths[parent] if inside else _under(paths[parent], leaf)

        def plain(key: str) -> str:
            path, _, leaf = key.rpartition(".")
            return _under(paths[path], leaf)

        self.names = {key: plain(key) for key in module.state_dict()}
        self.named = {parameter: plain(key) for key, parameter in module.named_parameters()}
        self.of_key: dict[str, _Rows] = {}
        self.of: dict[Tensor, _Rows] = {}
        self.pipelines: list[dist.ProcessGroup] = []
        for path, layer in layers.items():
            if isinstance(layer, SplitLookupTable | SplitHierarchicalSoftmax):
                for name, rows in layer.own_rows.items():
                    found = _Rows(rows, layer.whole_rows[name], layer.group)
                    self.of_key[_under(path, name)] = self.of[getattr(layer, name)] = found
            elif isinstance(layer, PipelineParallel) and layer.group not in self.pipelines:
                self.pipelines.append(layer.group)

    def name(self, parameter: Tensor) -> str:
        """The whole module's name for a parameter."""
        if parameter not in self.named:
            raise GraphScaleError(
                f"full state dict: a parameter of {list(parameter.shape)} in the optimizer is not "
                "one of the module; give the optimizer of this module"
            )
        return self.named[parameter]


def _refuse_own_state(optimizer: Optimizer | None) -> None:
    if isinstance(optimizer, OneBitSGD):
        raise GraphScaleError(
            "full state dict: the state of OneBitSGD is each rank's own; save its state_dict() of "
            "every rank, and give None as the optimizer here"
        )


def _is_wrapper(layer: nn.Module) -> bool:
    containers = ModelParallel, OneBitDataParallel, PipelineParallel
    return isinstance(layer, containers) or unwrapped(layer) is not layer


def _under(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf


def _alike(value: Any, parameter: Tensor) -> bool:
    """Whether an optimizer's state has an element for each of the parameter, or of its rows."""
    return (
        isinstance(value, Tensor)
        and value.ndim == parameter.ndim > 0
        and value.shape[1:] == parameter.shape[1:]
    )


def _whole(value: Any, rows: _Rows | None) -> Any:
    """The whole tensor of a part, on the CPU."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    elif rows is not None:
        ranks = dist.get_world_size(rows.group)
        counts = torch.zeros(ranks, dtype=torch.int64, device=value.device)
        counts[dist.get_rank(rows.group)] = len(value)
        dist.all_reduce(counts, group=rows.group)
        longest = int(counts.max())
        own = value.new_zeros(longest, *value.shape[1:])
        own[: len(value)] = value
        every = own.new_empty(ranks * longest, *value.shape[1:])
        all_gather_single(every, own, group=rows.group)
        parts = zip(every.split(longest), counts.tolist())
        value = torch.cat([part[:count] for part, count in parts])
    return value.to("cpu", copy=True)


def _own(name: str, value: Any, held: Any, rows: _Rows | None) -> Any:
    """This rank's part of a whole tensor, as `held` is split."""
    if not isinstance(value, Tensor):
        return value
    wanted = held.shape if rows is None else torch.Size((rows.whole, *held.shape[1:]))
    if value.shape != wanted:
        raise GraphScaleError(
            f"set_full_state_dict: {name!r} is {list(value.shape)} in the checkpoint and "
            f"{list(wanted)} in the module; load the checkpoint of this network"
        )
    if rows is not None:
        return value[rows.own]
    if hasattr(held, "placements"):
        whole = [Replicate()] * held.device_mesh.ndim
        value = value.to(held.device)
        value = distribute_tensor(value, held.device_mesh, whole, src_data_rank=None)
        return value.redistribute(held.device_mesh, held.placements)
    return value


def _own_states(optimizer: Optimizer, saved: Mapping[str, Any], places: _Places) -> StateDict:
    """The optimizer's state dict with this rank's part of the whole one."""
    group_of = {name: group for group in saved.get("param_groups", ()) for name in group["params"]}
    states, groups, number = {}, [], 0
    for group in optimizer.param_groups:
        names = [places.name(parameter) for parameter in group["params"]]
        found = group_of.get(names[0])
        if found is None or any(group_of.get(name) is not found for name in names):
            raise GraphScaleError(
                f"set_full_state_dict: the optimizer's group with {names[0]!r} is none in the "
                "checkpoint; make the optimizer with the groups of the checkpoint"
            )
        numbers = list(range(number, number + len(names)))
        number += len(names)
        groups.append({**found, "params": numbers})
        for at, name, parameter in zip(numbers, names, group["params"]):
            if name in saved["state"]:
                states[at] = {
                    key: _own(f"{key} of {name}", value, parameter, places.of.get(parameter))
                    if _alike(value, parameter)
                    else value
                    for key, value in saved["state"][name].items()
                }
    return {"state": states, "param_groups": groups}


def _joined_stages(
    state: StateDict, states: StateDict, group: dist.ProcessGroup
) -> tuple[StateDict, StateDict]:
    """The state dicts of all stages as one, on the first rank of the group."""
    first = dist.get_rank(group) == 0
    stages: list | None = [None] * dist.get_world_size(group) if first else None
    dist.gather_object((state, states), stages, dst=dist.get_global_rank(group, 0), group=group)
    if stages is None:
        return {}, {}
    state = {name: value for part, _ in stages for name, value in part.items()}
    if not states:
        return state, {}
    groups = [
        {**each[0], "params": [name for part in each for name in part["params"]]}
        for each in zip(*(part["param_groups"] for _, part in stages))
    ]
    merged = {name: value for _, part in stages for name, value in part["state"].items()}
    return state, {"state": merged, "param_groups": groups}
