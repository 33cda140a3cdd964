"""Adds overlapping windows up: the adjoint of ``Tensor.unfold``, for gradients of pooling layers.

Windows go in, the tensor to whose elements they add comes out. `fold` is made of torch's
operators that work in forward mode and under torch.vmap.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fold(windows: Tensor, size: int, dim: int, step: int) -> Tensor:
    """The adjoint of ``x.unfold(dim, width, step)``, for x with ``size`` elements along ``dim``.

    Args:
        windows: In the shape of unfold's result: the windows along ``dim``, and the elements of
            each window in the last dimension.
        size: Elements of the result along ``dim``; those in no window are zero.
        dim: The dimension, not negative.
        step: Elements between the starts of two windows.

    Returns:
        For each element the sum over the windows that hold it.

    Example:
        >>> fold(torch.tensor([[1, 2], [3, 4]]), size=4, dim=0, step=1)
        tensor([1, 5, 4, 0])
    """
    width = windows.shape[-1]
    starts = torch.arange(windows.shape[dim], device=windows.device) * step
    places = (starts[:, None] + torch.arange(width, device=windows.device)).flatten()
    elements = windows.movedim(-1, dim + 1).flatten(dim, dim + 1)
    shape = [*elements.shape[:dim], size, *elements.shape[dim + 1 :]]
    return elements.new_zeros(shape).index_add(dim, places, elements)
