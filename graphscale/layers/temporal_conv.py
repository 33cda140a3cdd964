"""Convolution over time of sequences stored frame after frame (fbcunn TemporalConvolutionFB).

Sequences [N, T, in_features] go in, [N, T_out, out_features] come out. The frames under one output
are neighbours in memory, so the layer is a matrix product on overlapping rows, without the copy
that torch.nn.Conv1d makes. The file holds the operators with ONNX function bodies, torch's versions
of them for forward mode and vmap, and the module.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.core.arguments import whole_number
from graphscale.layers.autograd import lower_type, register_autocast, widest_type
from graphscale.layers.bilinear_gradients import register_gradients
from graphscale.layers.operator import Operator


def _forward_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    return x.new_empty(x.shape[0], (x.shape[1] - weight.shape[1]) // stride + 1, weight.shape[0])


temporal_conv = Operator(
    "TemporalConv",
    "(Tensor x, Tensor weight, Tensor? bias=None, int stride=1) -> Tensor",
    _forward_shape,
    """
    <stride: int = 1>(x, weight, bias) => (y) {
        features_first = Transpose <perm = [0, 2, 1]> (x)
        kernel = Transpose <perm = [0, 2, 1]> (weight)
        every = Conv (features_first, kernel, bias)
        zero = Constant <value_ints = [0]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        two = Constant <value_ints = [2]> ()
        step = Constant <value_int: int = @stride> ()
        steps = Unsqueeze (step, zero)
        some = Slice (every, zero, end, two, steps)
        y = Transpose <perm = [0, 2, 1]> (some)
    }
    """,
)

# A transposed convolution. Its input is grad with stride - 1 zeros behind each frame, cut or filled
# up to the T - kernel + 1 frames that a convolution without a stride would have.
temporal_conv_grad_input = Operator(
    "TemporalConvGradInput",
    "(Tensor grad, Tensor weight, Tensor x, int stride=1) -> Tensor",
    lambda grad, weight, x, stride=1: x.new_empty(x.shape),
    """
    <stride: int = 1>(grad, weight, x) => (grad_x) {
        kernel = Transpose <perm = [0, 2, 1]> (weight)
        features_first = Transpose <perm = [0, 2, 1]> (grad)
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        three = Constant <value_ints = [3]> ()
        step = Constant <value_int: int = @stride> ()
        steps = Unsqueeze (step, zero)
        apart = Unsqueeze (features_first, three)
        gaps = Sub (steps, one)
        margins = Concat <axis = 0> (zero, gaps)
        spread = Pad (apart, margins, , three)
        grad_shape = Shape (features_first)
        outer = Slice (grad_shape, zero, two, zero)
        rest = Constant <value_ints = [-1]> ()
        flat_shape = Concat <axis = 0> (outer, rest)
        flat = Reshape <allowzero = 0> (spread, flat_shape)
        x_shape = Shape (x)
        frames = Gather <axis = 0> (x_shape, one)
        weight_shape = Shape (weight)
        width = Gather <axis = 0> (weight_shape, one)
        difference = Sub (frames, width)
        places = Add (difference, one)
        flat_all = Shape (flat)
        have = Gather <axis = 0> (flat_all, two)
        lacking = Sub (places, have)
        ends = Concat <axis = 0> (zero, lacking)
        fitted = Pad (flat, ends, , two)
        result = ConvTranspose (fitted, kernel)
        grad_x = Transpose <perm = [0, 2, 1]> (result)
    }
    """,
)

# A product of grad with the windows of x that each output frame read, summed over all frames.
temporal_conv_grad_weight = Operator(
    "TemporalConvGradWeight",
    "(Tensor grad, Tensor x, Tensor weight, int stride=1) -> Tensor",
    lambda grad, x, weight, stride=1: weight.new_empty(weight.shape),
    """
    <stride: int = 1>(grad, x, weight) => (grad_weight) {
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        one = Constant <value_ints = [1]> ()
        step = Constant <value_int: int = @stride> ()
        grad_shape = Shape (grad)
        weight_shape = Shape (weight)
        frames = Gather <axis = 0> (grad_shape, single)
        width = Gather <axis = 0> (weight_shape, single)
        outputs = Range (nought, frames, single)
        starts = Mul (outputs, step)
        column = Unsqueeze (starts, one)
        offsets = Range (nought, width, single)
        places = Add (column, offsets)
        windows = Gather <axis = 1> (x, places)
        grad_weight = Einsum <equation = "nto,ntkc->okc"> (grad, windows)
    }
    """,
)


def _in_torch(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    return functional.conv1d(x.mT, weight.mT, bias, stride).mT


def _gradients_in_torch(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        grad.mT, x.mT, weight.mT, None, [stride], [0], [1], False, [0], 1, [*mask, False]
    )[:2]


def _grad_input_in_torch(grad: Tensor, weight: Tensor, x: Tensor, stride: int) -> Tensor:
    return _gradients_in_torch(grad, x, weight, stride, [True, False])[0].mT


def _grad_weight_in_torch(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return _gradients_in_torch(grad, x, weight, stride, [False, True])[1].mT


register_gradients(
    temporal_conv,
    temporal_conv_grad_input,
    temporal_conv_grad_weight,
    (_in_torch, _grad_input_in_torch, _grad_weight_in_torch),
    grad_bias=lambda grad: grad.sum((0, 1)),
)
register_autocast(temporal_conv, lower_type)
for _operator in (temporal_conv_grad_input, temporal_conv_grad_weight):
    register_autocast(_operator, widest_type)


class TemporalConv(nn.Module):
    """Convolution over the frames of sequences, without padding (fbcunn TemporalConvolutionFB).

    x [N, T, in_features] or [T, in_features] gives [N, T_out, out_features] or [T_out,
    out_features], T_out = (T - kernel_size) // stride + 1, in float32, float64, float16 or
    bfloat16. ``weight`` [out_features, in_features, kernel_size] and ``bias`` [out_features] have
    the names and shapes of ``torch.nn.Conv1d``'s, so its state dicts load.

    Args:
        features_first: Input and output are torch's [N, features, T].

    Raises:
        GraphScaleError: a size is not positive, x is shorter than the kernel, or it has other
            features than the layer.

    Example:
        >>> TemporalConv(8, 64, 5)(torch.randn(32, 20, 8)).shape
        torch.Size([32, 16, 64])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = True,
        features_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = whole_number("TemporalConv: in_features", in_features, 1)
        self.out_features = whole_number("TemporalConv: out_features", out_features, 1)
        self.kernel_size = whole_number("TemporalConv: kernel_size", kernel_size, 1)
        self.stride = whole_number("TemporalConv: stride", stride, 1)
        self.features_first = features_first
        # Memory holds [out, kernel, in], as the C++ kernel reads it; the parameter is a view of it
        # in Conv1d's shape [out, in, kernel].
        empty = partial(torch.empty, device=device, dtype=dtype)
        stored = empty(self.out_features, self.kernel_size, self.in_features)
        self.weight = nn.Parameter(stored.permute(0, 2, 1))
        self.bias = nn.Parameter(empty(self.out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from +-1 / sqrt(kernel_size * in_features), as fbcunn."""
        bound = 1 / math.sqrt(self.kernel_size * self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [N, T, in_features] or [T, in_features]."""
        sequence = x.mT if self.features_first else x
        if x.dim() == 2:
            sequence = sequence[None]
        y = temporal_conv(sequence, self.weight.permute(0, 2, 1), self.bias, self.stride)
        if x.dim() == 2:
            y = y[0]
        return y.mT if self.features_first else y

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return (
            f"{self.in_features}, {self.out_features}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, bias={self.bias is not None}, "
            f"features_first={self.features_first}"
        )
