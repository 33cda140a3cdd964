"""Give DistributedDataParallel a new reducer after the parameters inside it have grown.

The reducer keeps gradients in buckets of the parameters' old sizes, and its hooks are on their old
gradient accumulators. Without a new one, gradients would no longer be averaged, and nothing would
say so.
"""

from __future__ import annotations

import gc

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from graphscale.core.errors import GraphScaleError


def parallel_wrappers(module: nn.Module, given: nn.Module) -> list[DistributedDataParallel]:
    """Every DistributedDataParallel in this process that wraps `module`.

    Args:
        module: The module that will grow.
        given: What the user gave to `grow_`, which may be such a wrapper.

    Raises:
        GraphScaleError: the module or a wrapper cannot grow in place; says what to do.
    """
    # By name, because torch's FSDP takes long to import.
    classes = {base.__name__ for part in given.modules() for base in type(part).__mro__}
    if "FullyShardedDataParallel" in classes:
        raise GraphScaleError(
            f"{type(module).__name__} is sharded by FullyShardedDataParallel, which cannot grow in "
            "place; use torch's fully_shard, or gather its full state dict, grow it by "
            "graphscale.grow(state_dict, target=module), and shard the result"
        )
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return []
    # The wrapper may be around what was given, as Lightning's is around the LightningModule; it
    # can be found among all objects only.
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
    """Rebuild the wrapper's reducer for the present parameters; must be called on every rank.

    The wrapper stays the same object. Its own __setstate__, which pickle calls, builds the reducer
    from the wrapper's settings; communication hooks are registered again.
    """
    hooks = list(wrapper._comm_hooks)
    state = wrapper.__getstate__()
    wrapper.reducer._remove_autograd_hooks()
    wrapper.__setstate__(state)
    wrapper._has_rebuilt_buckets = False
    wrapper._comm_hooks.clear()
    for hook, hook_state in hooks:
        wrapper.register_comm_hook(hook_state, hook)
