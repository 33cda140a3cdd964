"""Pooling that keeps the k largest values in their order (fbcunn TemporalKMaxPooling).

`TemporalKMaxPool` takes sequences and keeps the k largest values of each feature over time;
`GroupKMaxPool` (fbnn) keeps the k largest of each group of neighbouring features. The file holds
the operator with its ONNX function body, its derivative and the modules.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphscale.core.arguments import real_number, whole_number
from graphscale.core.errors import GraphScaleError
from graphscale.layers.autograd import register_derivatives
from graphscale.layers.operator import Operator


def _count(frames: int, k: int, k_dynamic: float) -> int:
    """How many of ``frames`` are kept: ``k``, or a share of them where that is more."""
    if k_dynamic <= 0:
        return k
    # Rounding must not add a frame: 0.07 * 100 is a little more than 7 in floating point.
    return torch.sym_max(k, math.ceil(k_dynamic * frames - 1e-4))


def _shape(x: Tensor, k: int, k_dynamic: float = 0.0) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], _count(x.shape[1], k, k_dynamic), x.shape[2])
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


temporal_k_max_pool = Operator(
    "TemporalKMaxPool",
    "(Tensor x, int k, float k_dynamic=0.0) -> (Tensor, Tensor)",
    _shape,
    """
    <k, k_dynamic: float = 0.0>(x) => (y, index) {
        one = Constant <value_ints = [1]> ()
        frames_long = Shape <start = 1, end = 2> (x)
        frames = Cast <to = 11> (frames_long)
        share_float = Constant <value_float: float = @k_dynamic> ()
        share = Cast <to = 11> (share_float)
        error_float = Constant <value_float = 0.0001> ()
        error = Cast <to = 11> (error_float)
        product = Mul (share, frames)
        corrected = Sub (product, error)
        rounded = Ceil (corrected)
        dynamic = Cast <to = 7> (rounded)
        fixed = Constant <value_int: int = @k> ()
        fixed_list = Reshape (fixed, one)
        count = Max (fixed_list, dynamic)
        values, order = TopK <axis = 1> (x, count)
        index, places = TopK <axis = 1, largest = 0> (order, count)
        y = GatherElements <axis = 1> (x, index)
    }
    """,
)


def _in_torch(x: Tensor, k: int, k_dynamic: float) -> tuple[Tensor, Tensor]:
    order = x.detach().sort(dim=1, descending=True, stable=True).indices
    index = order.narrow(1, 0, _count(x.shape[1], k, k_dynamic)).sort(1).values
    return x.gather(1, index), index


def _setup_context(ctx, inputs, output) -> None:
    x, _, _ = inputs
    ctx.save_for_backward(x, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad: Tensor, _):
    x, index = ctx.saved_tensors
    return torch.zeros_like(x).scatter(1, index, grad), None, None


register_derivatives(temporal_k_max_pool, _in_torch, _backward, _setup_context)


class TemporalKMaxPool(nn.Module):
    """The k largest values of each feature over time, in their order (fbcunn TemporalKMaxPooling).

    x [N, T, D] or [T, D] gives [N, K, D] or [K, D], K = max(k, ceil(k_dynamic * T)), in float32,
    float64, float16 or bfloat16. Of equal values the first are taken. ``k_dynamic`` is the dynamic
    k-max pooling of Kalchbrenner, Grefenstette and Blunsom 2014.

    Raises:
        GraphScaleError: x has fewer than K frames, or another number of dimensions.

    Example:
        >>> TemporalKMaxPool(2)(torch.tensor([[3.0], [1.0], [5.0], [4.0]])).flatten()
        tensor([5., 4.])
    """

    def __init__(self, k: int, k_dynamic: float = 0.0) -> None:
        super().__init__()
        self.k = whole_number("TemporalKMaxPool: k", k, 0)
        self.k_dynamic = real_number("TemporalKMaxPool: k_dynamic", k_dynamic, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool x [N, T, D] or [T, D]."""
        if x.dim() == 2:
            return temporal_k_max_pool(x[None], self.k, self.k_dynamic)[0][0]
        return temporal_k_max_pool(x, self.k, self.k_dynamic)[0]

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"k={self.k}, k_dynamic={self.k_dynamic}"


class GroupKMaxPool(nn.Module):
    """The k largest of each group of neighbouring features, in order (fbnn GroupKMaxPooling).

    x [..., C] gives [..., C / group * k], in float32, float64, float16 or bfloat16.

    Raises:
        GraphScaleError: k is not between 1 and ``group``, or C is no multiple of ``group``.

    Example:
        >>> GroupKMaxPool(group=3, k=2)(torch.tensor([1.0, 3.0, 2.0, 6.0, 4.0, 5.0]))
        tensor([3., 2., 6., 5.])
    """

    def __init__(self, group: int, k: int) -> None:
        super().__init__()
        self.group = whole_number("GroupKMaxPool: group", group, 1)
        self.k = whole_number("GroupKMaxPool: k", k, 1, self.group)

    def forward(self, x: Tensor) -> Tensor:
        """Pool x [..., C], C a multiple of ``group``."""
        features = x.shape[-1] if x.dim() else 0
        if x.dim() == 0 or features % self.group != 0:
            raise GraphScaleError(
                f"GroupKMaxPool: x has {features} features; give a multiple of {self.group}"
            )
        groups = x.reshape(-1, self.group, 1)
        largest = temporal_k_max_pool(groups, self.k, 0.0)[0]
        return largest.reshape(*x.shape[:-1], features // self.group * self.k)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"group={self.group}, k={self.k}"
