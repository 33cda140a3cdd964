"""The adjoint of ``Tensor.unfold``, of operators that torch.vmap and forward mode know."""

from __future__ import annotations

import torch
from torch import Tensor


def fold(windows: Tensor, size: int, dim: int, step: int) -> Tensor:
    """What ``unfold(dim, width, step)`` of a tensor with ``size`` along ``dim`` is transposed.

    ``windows``, with the elements of each window in its last dimension, are added up where they
    overlap; ``dim`` is not negative.
    """
    width = windows.shape[-1]
    starts = torch.arange(windows.shape[dim], device=windows.device) * step
    places = (starts[:, None] + torch.arange(width, device=windows.device)).flatten()
    elements = windows.movedim(-1, dim + 1).flatten(dim, dim + 1)
    shape = [*elements.shape[:dim], size, *elements.shape[dim + 1 :]]
    return elements.new_zeros(shape).index_add(dim, places, elements)
