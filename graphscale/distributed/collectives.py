"""Collectives on single tensors, under the names that they have in this version of torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parameter import is_lazy

from graphscale.core.errors import GraphScaleError

# torch 2.13 renamed them.
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@torch.no_grad()
def copy_from_first(
    module: nn.Module, groups: Iterable[dist.ProcessGroup | None], container: str
) -> None:
    """Give `module` the parameters and buffers of the first rank of each group.

    Raises:
        GraphScaleError: a lazy layer has no parameters yet; names the `container`.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise GraphScaleError(
                f"{container}: {name} has no shape before the first forward pass; call the module "
                "once before it is wrapped"
            )
        # A collective sends what lies at the tensor's address, whatever its strides.
        sent = tensor.contiguous()
        for group in groups:
            first = dist.get_global_rank(group or dist.group.WORLD, 0)
            dist.broadcast(sent, first, group=group)
        if sent is tensor:
            continue
        if any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape)):
            tensor.data = sent  # an expanded tensor cannot be written
        else:
            tensor.copy_(sent)
