"""Enter and leave the layers whose weights are split over ranks, with gradients.

In: a tensor of this rank's, and the process group that shares the weights. There are two ways, by
what the ranks have in front of such a layer:

- 'same': every rank has the same batch. `enter` hands it on, and adds the ranks' gradients to it
  up; `leave` adds up what the ranks computed, and every rank gets the sum.
- 'split': every rank has images of its own. `enter` gives every rank the batches of all ranks one
  after another; `leave` adds up what the ranks computed, and every rank gets the rows of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.collectives import all_gather_single, reduce_scatter_single

BATCHES = ("same", "split")

_CHECKED = 8  # tensors of a call


def enter(x: Tensor, batch: str, group: dist.ProcessGroup) -> Tensor:
    """x [N, ...] for a split layer: [N, ...] of 'same' batches, or [ranks N, ...] of 'split' ones.

    With 'split', N must be the same on every rank.
    """
    return _Copy.apply(x, group) if batch == "same" else _Gather.apply(x, group)


def leave(y: Tensor, batch: str, group: dist.ProcessGroup) -> Tensor:
    """The sum over ranks of y, for this rank's images: the inverse of `enter`'s shapes."""
    return _Sum.apply(y, group) if batch == "same" else _Scatter.apply(y, group)


def check_batch(container: str, batch: str) -> None:
    """Raise GraphScaleError, naming `container`, for an unknown kind of batch."""
    if batch not in BATCHES:
        raise GraphScaleError(f"{container}: unknown batch {batch!r}; use {' or '.join(BATCHES)}")


def check_lengths(
    container: str, tensors: Sequence[Tensor], group: dist.ProcessGroup, device: str
) -> None:
    """Raise GraphScaleError on every rank where their tensors differ in number or length.

    Without it gloo ends the process where a rank gets more bytes than it expects.

    Args:
        container: For the message.
        tensors: What this rank's module was called with.
        group: The ranks that share weights.
        device: Of the group's collectives.
    """
    lengths = [len(each) if each.ndim else 0 for each in tensors[:_CHECKED]]
    own = torch.tensor([len(tensors), *lengths, *[0] * (_CHECKED - len(lengths))], device=device)
    every = own.new_empty(dist.get_world_size(group) * len(own))
    all_gather_single(every, own, group=group)
    found = every.view(-1, len(own)).tolist()
    for rank, each in enumerate(found):
        if each != found[0]:
            raise GraphScaleError(
                f"{container}: rank 0 has batches of {found[0][1 : 1 + found[0][0]]} images and "
                f"rank {rank} of {each[1 : 1 + each[0]]}; ranks that share weights need equally "
                "many, so drop the rest of the last batch"
            )


def own_share(count: int, group: dist.ProcessGroup) -> slice:
    """The part of `count` things that is this rank's, as torch.chunk divides them."""
    size = -(-count // dist.get_world_size(group))
    start = min(dist.get_rank(group) * size, count)
    return slice(start, min(start + size, count))


def _summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    every = x.new_empty(len(x) * dist.get_world_size(group), *x.shape[1:])
    all_gather_single(every, x.contiguous(), group=group)
    return every


def _scattered(y: Tensor, group: dist.ProcessGroup) -> Tensor:
    own = y.new_empty(len(y) // dist.get_world_size(group), *y.shape[1:])
    reduce_scatter_single(own, y.contiguous(), group=group)
    return own


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _summed(grad, ctx.group), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _summed(y, group)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None  # every rank computes the same loss, and has its whole gradient


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _scattered(grad, ctx.group), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scattered(y, group)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _gathered(grad, ctx.group), None
