"""Let DistributedDataParallel follow the growth of the parameters that it reduces.

Its reducer lays gradients out in buckets of the parameters' old sizes and hooks into the old
gradient accumulators; without a new reducer, gradients would silently no longer be averaged.
"""

from __future__ import annotations

import gc

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from graphscale.core.errors import GraphScaleError


def parallel_wrappers(module: nn.Module, given: nn.Module) -> list[DistributedDataParallel]:
    """Every DistributedDataParallel in this process that holds `module`, first those in `given`.

    Raises:
        GraphScaleError: the module or a wrapper cannot grow in place; says what to do.
    """
    if any(hasattr(parameter, "placements") for parameter in module.parameters()):
        raise GraphScaleError(
            f"{type(module).__name__} is sharded (FSDP or tensor parallel), which cannot grow in "
            "place; gather its full state dict, grow it by graphscale.grow(state_dict, "
            "target=module), and shard the result"
        )
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return []
    # A wrapper need not be in what was given: Lightning wraps the LightningModule around it.
    found = [each for each in given.modules() if isinstance(each, DistributedDataParallel)]
    for each in gc.get_objects():
        if issubclass(type(each), DistributedDataParallel) and not any(each is w for w in found):
            found.append(each)
    found = [each for each in found if any(part is module for part in each.modules())]
    for wrapper in found:
        if wrapper.mixed_precision is not None:
            raise GraphScaleError(
                "DistributedDataParallel with mixed_precision keeps copies of the parameters; "
                "grow the module before it is wrapped, or use torch.autocast"
            )
        if wrapper.process_group != torch.distributed.group.WORLD:
            raise GraphScaleError(
                "DistributedDataParallel of a process group of its own cannot be renewed; grow the "
                "module inside and wrap it again"
            )
    return found


def renew(wrapper: DistributedDataParallel) -> None:
    """Make the wrapper's reducer again, for the parameters as they are now; on every rank.

    The wrapper stays the same object. It takes the way of unpickling, which builds the reducer
    from the wrapper's own settings; communication hooks are registered again.
    """
    hooks = list(wrapper._comm_hooks)
    state = wrapper.__getstate__()
    wrapper.reducer._remove_autograd_hooks()
    wrapper.__setstate__(state)
    wrapper._has_rebuilt_buckets = False
    wrapper._comm_hooks.clear()
    for hook, hook_state in hooks:
        wrapper.register_comm_hook(hook_state, hook)
