"""A convolution with other weights at each position (fbcunn LocallyConnected).

Images of one fixed size go in, one feature map per output channel comes out. The file holds the
operators with ONNX function bodies, torch's versions of them for forward mode and vmap, and the
module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from graphscale.core.arguments import height_and_width, whole_number
from graphscale.core.errors import GraphScaleError
from graphscale.layers.autograd import lower_type, register_autocast, widest_type
from graphscale.layers.bilinear_gradients import register_gradients
from graphscale.layers.operator import Operator
from graphscale.layers.windows import fold

# `rows` [H_out, kH] and `columns` [W_out, kW]: the pixels of x under each output position.
_PLACES = """
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        second = Constant <value_int = 2> ()
        fourth = Constant <value_int = 4> ()
        fifth = Constant <value_int = 5> ()
        one = Constant <value_ints = [1]> ()
        sizes = Shape (weight)
        out_height = Gather (sizes, single)
        out_width = Gather (sizes, second)
        kernel_height = Gather (sizes, fourth)
        kernel_width = Gather (sizes, fifth)
        strides = Constant <value_ints: ints = @strides> ()
        stride_y = Gather (strides, nought)
        stride_x = Gather (strides, single)
        out_rows = Range (nought, out_height, single)
        tops = Mul (out_rows, stride_y)
        top_column = Unsqueeze (tops, one)
        kernel_rows = Range (nought, kernel_height, single)
        rows = Add (top_column, kernel_rows)
        out_columns = Range (nought, out_width, single)
        lefts = Mul (out_columns, stride_x)
        left_column = Unsqueeze (lefts, one)
        kernel_columns = Range (nought, kernel_width, single)
        columns = Add (left_column, kernel_columns)
"""
# `patches` [N, C, H_out, kH, W_out, kW]: those pixels.
_PATCHES = f"""
        {_PLACES}
        strips = Gather <axis = 2> (x, rows)
        patches = Gather <axis = 4> (strips, columns)
"""

locally_connected = Operator(
    "LocallyConnected",
    "(Tensor x, Tensor weight, int[] strides=[]) -> Tensor",
    lambda x, weight, strides=(): x.new_empty(x.shape[0], *weight.shape[:3]),
    f"""
    <strides>(x, weight) => (y) {{
        {_PATCHES}
        y = Einsum <equation = "nchiwj,fhwcij->nfhw"> (patches, weight)
    }}
    """,
)

# Gradients to all patches, added up where patches overlap: first along the columns, then the rows.
locally_connected_grad_input = Operator(
    "LocallyConnectedGradInput",
    "(Tensor grad, Tensor weight, Tensor x, int[] strides=[]) -> Tensor",
    lambda grad, weight, x, strides=(): x.new_empty(x.shape),
    f"""
    <strides>(grad, weight, x) => (grad_x) {{
        {_PLACES}
        patches = Einsum <equation = "nfhw,fhwcij->nchiwj"> (grad, weight)
        outer = Shape <start = 0, end = 2> (x)
        strip_rows = Size (rows)
        strip_columns = Size (columns)
        height = Reshape (strip_rows, one)
        width = Reshape (strip_columns, one)
        flat_shape = Concat <axis = 0> (outer, height, width)
        flat = Reshape (patches, flat_shape)
        column_shape = Constant <value_ints = [1, 1, 1, -1]> ()
        column_list = Reshape (columns, column_shape)
        all_columns = Expand (column_list, flat_shape)
        image_width = Shape <start = 3> (x)
        strips_shape = Concat <axis = 0> (outer, height, image_width)
        zero_float = Constant <value_float = 0.0> ()
        zero = CastLike (zero_float, x)
        no_strips = Expand (zero, strips_shape)
        strips = ScatterElements <axis = 3, reduction = "add"> (no_strips, all_columns, flat)
        row_shape = Constant <value_ints = [1, 1, -1, 1]> ()
        row_list = Reshape (rows, row_shape)
        all_rows = Expand (row_list, strips_shape)
        x_shape = Shape (x)
        nothing = Expand (zero, x_shape)
        grad_x = ScatterElements <axis = 2, reduction = "add"> (nothing, all_rows, strips)
    }}
    """,
)

locally_connected_grad_weight = Operator(
    "LocallyConnectedGradWeight",
    "(Tensor grad, Tensor x, Tensor weight, int[] strides=[]) -> Tensor",
    lambda grad, x, weight, strides=(): weight.new_empty(weight.shape),
    f"""
    <strides>(grad, x, weight) => (grad_weight) {{
        {_PATCHES}
        grad_weight = Einsum <equation = "nfhw,nchiwj->fhwcij"> (grad, patches)
    }}
    """,
)


def _patches(x: Tensor, weight: Tensor, strides: Sequence[int]) -> Tensor:
    """The pixels of x under each output position, [N, C, H_out, W_out, kH, kW]."""
    rows, columns = strides or (1, 1)
    return x.unfold(2, weight.shape[4], rows).unfold(3, weight.shape[5], columns)


def _in_torch(x: Tensor, weight: Tensor, strides: Sequence[int]) -> Tensor:
    return torch.einsum("nchwij,fhwcij->nfhw", _patches(x, weight, strides), weight)


def _grad_input_in_torch(grad: Tensor, weight: Tensor, x: Tensor, strides: Sequence[int]) -> Tensor:
    patches = torch.einsum("nfhw,fhwcij->nchwij", grad, weight)
    rows, columns = strides or (1, 1)
    return fold(fold(patches, x.shape[3], 3, columns), x.shape[2], 2, rows)


def _grad_weight_in_torch(
    grad: Tensor, x: Tensor, weight: Tensor, strides: Sequence[int]
) -> Tensor:
    return torch.einsum("nfhw,nchwij->fhwcij", grad, _patches(x, weight, strides))


register_gradients(
    locally_connected,
    locally_connected_grad_input,
    locally_connected_grad_weight,
    (_in_torch, _grad_input_in_torch, _grad_weight_in_torch),
)
register_autocast(locally_connected, lower_type)
for _operator in (locally_connected_grad_input, locally_connected_grad_weight):
    register_autocast(_operator, widest_type)


class LocallyConnected(nn.Module):
    """A convolution with a kernel of its own at each position (fbcunn LocallyConnected).

    x [N, in_channels, H, W], H and W those of ``image_size``, gives [N, out_channels, H_out,
    W_out], H_out = (H - kH) // stride + 1, in float32, float64, float16 or bfloat16. There is no
    padding. ``weight`` is [out_channels, H_out, W_out, in_channels, kH, kW] and ``bias``
    [out_channels, H_out, W_out].

    Raises:
        GraphScaleError: the kernel does not fit ``image_size``, or x has another size or other
            channels.

    Example:
        >>> layer = LocallyConnected(3, 8, image_size=(32, 32), kernel_size=5)
        >>> layer(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 8, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: tuple[int, int],
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_channels = whole_number("LocallyConnected: in_channels", in_channels, 1)
        out_channels = whole_number("LocallyConnected: out_channels", out_channels, 1)
        self.kernel_size = height_and_width("LocallyConnected: kernel_size", kernel_size)
        self.stride = height_and_width("LocallyConnected: stride", stride)
        self.image_size = height_and_width("LocallyConnected: image_size", image_size)
        positions = []
        for size, kernel, step in zip(self.image_size, self.kernel_size, self.stride):
            if kernel > size:
                raise GraphScaleError(
                    f"LocallyConnected: a kernel of {kernel} does not fit an image of {size}; give "
                    f"a kernel of 1 to {size}"
                )
            positions.append((size - kernel) // step + 1)
        empty = partial(torch.empty, device=device, dtype=dtype)
        self.weight = nn.Parameter(empty(out_channels, *positions, in_channels, *self.kernel_size))
        self.bias = nn.Parameter(empty(out_channels, *positions)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from +-1 / sqrt(C * kH * kW)."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[3:]))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [N, in_channels, *image_size]."""
        y = locally_connected(x, self.weight, list(self.stride))
        # Under autocast y is float16 or bfloat16, but the bias is float32.
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return (
            f"{self.weight.shape[3]}, {self.weight.shape[0]}, image_size={self.image_size}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}"
        )
