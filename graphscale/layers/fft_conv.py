"""Convolution by FFT, with all that ONNX Conv can do (fbcunn SpatialConvolutionCuFFT).

Images or sequences [N, C, ...] go in, [N, F, ...] come out, as from torch.nn.Conv2d and Conv1d,
whose arguments and state dicts the modules have. The file holds the operators with ONNX function
bodies, torch's versions of them for forward mode and vmap, and the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.core.errors import GraphScaleError
from graphscale.core.fft_conv_definition import FFT_CONV, MAXIMUM, MINIMUM
from graphscale.layers.autograd import lower_type, register_autocast, widest_type
from graphscale.layers.bilinear_gradients import register_gradients
from graphscale.layers.operator import Operator

_ATTRIBUTES = (
    "int[] dilations=[], int group=1, int[] kernel_shape=[], int[] pads=[], int[] strides=[]"
)
_BODY_ATTRIBUTES = (
    '<dilations, kernel_shape, pads, strides, group: int = 1, algorithm: string = "auto">'
)


def _filled_in(spatial: int, dilations, pads, strides) -> tuple[list[int], list[int], list[int]]:
    """Dilations, pads and strides; an empty list becomes the default for ``spatial`` dimensions."""
    return (
        list(dilations) or [1] * spatial,
        list(pads) or [0] * 2 * spatial,
        list(strides) or [1] * spatial,
    )


def _resolved_pads(x: Tensor, weight: Tensor, auto_pad: str, dilations, pads, strides) -> list[int]:
    """Explicit pads for ``auto_pad`` and the sizes of x: all begins, then all ends, as in ONNX."""
    spatial = x.dim() - 2
    dilations, pads, strides = _filled_in(spatial, dilations, pads, strides)
    if auto_pad == "NOTSET":
        return pads
    begins, ends = [], []
    for d in range(spatial):
        total = 0
        if auto_pad != "VALID":
            size, stride = x.shape[2 + d], strides[d]
            span = (weight.shape[2 + d] - 1) * dilations[d] + 1
            total = max(0, ((size + stride - 1) // stride - 1) * stride + span - size)
        smaller = total // 2
        begins.append(total - smaller if auto_pad == "SAME_LOWER" else smaller)
        ends.append(total - begins[-1])
    return begins + ends


def _forward_shape(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    algorithm: str = "auto",
    minimum: float = MINIMUM,
    maximum: float = MAXIMUM,
) -> Tensor:
    spatial = X.dim() - 2
    pads = _resolved_pads(X, W, auto_pad, dilations, pads, strides)
    dilations, _, strides = _filled_in(spatial, dilations, pads, strides)
    sizes = [
        (X.shape[2 + d] + pads[d] + pads[spatial + d] - (W.shape[2 + d] - 1) * dilations[d] - 1)
        // strides[d]
        + 1
        for d in range(spatial)
    ]
    return X.new_empty(X.shape[0], W.shape[0], *sizes)


fft_conv = Operator(
    "FFTConv",
    f'(Tensor X, Tensor W, Tensor? B=None, {_ATTRIBUTES}, str auto_pad="NOTSET", '
    f'str algorithm="auto", float minimum={MINIMUM}, float maximum={MAXIMUM}) -> Tensor',
    _forward_shape,
    FFT_CONV.body,
)

# A transposed convolution without pads. Where strides left rows of X out at the end, zeros are
# added; then the part that X without its pads covers is cut out.
fft_conv_grad_input = Operator(
    "FFTConvGradInput",
    f'(Tensor grad, Tensor W, Tensor X, {_ATTRIBUTES}, str algorithm="auto") -> Tensor',
    lambda grad, W, X, *attributes, **named: X.new_empty(X.shape),
    f"""
    {_BODY_ATTRIBUTES}(grad, W, X) => (grad_X) {{
        full = ConvTranspose <dilations: ints = @dilations, group: int = @group,
                              strides: ints = @strides> (grad, W)
        wanted = Shape <start = 2> (X)
        had = Shape <start = 2> (full)
        all_pads = Constant <value_ints: ints = @pads> ()
        nought = Constant <value_int = 0> ()
        zero = Constant <value_ints = [0]> ()
        spatial = Shape (wanted)
        begins = Slice (all_pads, zero, spatial, zero)
        ends = Add (begins, wanted)
        difference = Sub (ends, had)
        lacking = Max (difference, zero)
        nothing = Mul (begins, nought)
        margins = Concat <axis = 0> (nothing, lacking)
        two = Constant <value_int = 2> ()
        one = Constant <value_int = 1> ()
        X_shape = Shape (X)
        rank = Size (X_shape)
        axes = Range (two, rank, one)
        padded = Pad (full, margins, , axes)
        grad_X = Slice (padded, begins, ends, axes)
    }}
    """,
)

# A convolution of X with grad as its kernel, summed over the batch: batch and channels change
# places, and so do strides and dilations.
fft_conv_grad_weight = Operator(
    "FFTConvGradWeight",
    f'(Tensor grad, Tensor X, Tensor W, {_ATTRIBUTES}, str algorithm="auto") -> Tensor',
    lambda grad, X, W, *attributes, **named: W.new_empty(W.shape),
    f"""
    {_BODY_ATTRIBUTES}(grad, X, W) => (grad_W) {{
        one_list = Constant <value_ints = [1]> ()
        rest = Constant <value_ints = [-1]> ()
        groups = Constant <value_int: int = @group> ()
        group_list = Reshape (groups, one_list)
        batch = Shape <start = 0, end = 1> (X)
        channels = Shape <start = 1, end = 2> (W)
        filters = Shape <start = 0, end = 1> (W)
        x_space = Shape <start = 2> (X)
        grad_space = Shape <start = 2> (grad)
        grouped_shape = Concat <axis = 0> (batch, group_list, channels, rest)
        grouped = Reshape (X, grouped_shape)
        x_turned = Transpose <perm = [2, 1, 0, 3]> (grouped)
        rows = Mul (group_list, batch)
        image_shape = Concat <axis = 0> (channels, rows, x_space)
        image = Reshape (x_turned, image_shape)
        flat_shape = Concat <axis = 0> (batch, filters, rest)
        flat = Reshape (grad, flat_shape)
        grad_turned = Transpose <perm = [1, 0, 2]> (flat)
        kernel_shape = Concat <axis = 0> (filters, batch, grad_space)
        kernel = Reshape (grad_turned, kernel_shape)
        full = Conv <dilations: ints = @strides, group: int = @group, pads: ints = @pads,
                     strides: ints = @dilations> (image, kernel)
        ends = Shape <start = 2> (W)
        two = Constant <value_int = 2> ()
        one = Constant <value_int = 1> ()
        nought = Constant <value_int = 0> ()
        W_shape = Shape (W)
        rank = Size (W_shape)
        axes = Range (two, rank, one)
        begins = Mul (ends, nought)
        cut = Slice (full, begins, ends, axes)
        turned_shape = Concat <axis = 0> (channels, filters, rest)
        turned = Reshape (cut, turned_shape)
        result = Transpose <perm = [1, 0, 2]> (turned)
        grad_W = Reshape (result, W_shape)
    }}
    """,
)


def _in_torch(
    X: Tensor,
    W: Tensor,
    B: Tensor | None,
    dilations: Sequence[int],
    group: int,
    kernel_shape: Sequence[int],
    pads: Sequence[int],
    strides: Sequence[int],
    auto_pad: str,
    algorithm: str,
    minimum: float,
    maximum: float,
) -> Tensor:
    spatial = X.dim() - 2
    pads = _resolved_pads(X, W, auto_pad, dilations, pads, strides)
    dilations, pads, strides = _filled_in(spatial, dilations, pads, strides)
    x, pads = _padded(X, pads), [0] * spatial
    y = torch.convolution(x, W, B, strides, pads, dilations, False, pads, group)
    bounded = minimum > MINIMUM or maximum < MAXIMUM
    return y.clamp(minimum, maximum) if bounded else y


def _padded(x: Tensor, pads: Sequence[int]) -> Tensor:
    """x with ``pads`` zeros around; torch.convolution itself can only pad both ends equally."""
    spatial = x.dim() - 2
    last_first = [pads[end * spatial + d] for d in reversed(range(spatial)) for end in (0, 1)]
    return functional.pad(x, last_first)


def _gradients_in_torch(
    grad: Tensor,
    X: Tensor,
    W: Tensor,
    dilations: Sequence[int],
    group: int,
    pads: Sequence[int],
    strides: Sequence[int],
    mask: list[bool],
) -> tuple[Tensor, Tensor]:
    spatial = X.dim() - 2
    dilations, pads, strides = _filled_in(spatial, dilations, pads, strides)
    x, none = _padded(X, pads), [0] * spatial
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, W, None, strides, none, dilations, False, none, group, [*mask, False]
    )
    return to_x if to_x is None else _padded(to_x, [-pad for pad in pads]), to_weight


def _grad_input_in_torch(
    grad, W, X, dilations, group, kernel_shape, pads, strides, algorithm
) -> Tensor:
    mask = [True, False]
    return _gradients_in_torch(grad, X, W, dilations, group, pads, strides, mask)[0]


def _grad_weight_in_torch(
    grad, X, W, dilations, group, kernel_shape, pads, strides, algorithm
) -> Tensor:
    mask = [False, True]
    return _gradients_in_torch(grad, X, W, dilations, group, pads, strides, mask)[1]


# The attributes that the gradients get: those of the forward pass with explicit pads, without its
# algorithm and bounds.
def _resolved(
    x: Tensor, weight: Tensor, dilations, group, kernel_shape, pads, strides, auto_pad, *rest
) -> tuple:
    pads = _resolved_pads(x, weight, auto_pad, dilations, pads, strides)
    return dilations, group, kernel_shape, pads, strides


def _bounds(*attributes) -> tuple[float, float] | None:
    minimum, maximum = attributes[-2:]
    return (minimum, maximum) if minimum > MINIMUM or maximum < MAXIMUM else None


# shared=5: the attributes up to strides. The algorithm, which may be the one that was measured to
# be the fastest for this pass, is not handed on; the gradients choose their own.
register_gradients(
    fft_conv,
    fft_conv_grad_input,
    fft_conv_grad_weight,
    (_in_torch, _grad_input_in_torch, _grad_weight_in_torch),
    grad_bias=lambda grad: grad.sum([0, *range(2, grad.dim())]),
    shared=5,
    resolve=_resolved,
    bounds=_bounds,
)
register_autocast(fft_conv, lower_type)
for _operator in (fft_conv_grad_input, fft_conv_grad_weight):
    register_autocast(_operator, widest_type)


def convolve(
    layer: nn.Module,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    function: Callable[..., Tensor] = fft_conv,
) -> Tensor:
    """Convolve x by ``function`` with the settings of ``layer``, an nn.Conv1d or nn.Conv2d.

    x [N, C, ...] or [C, ...] gives what ``layer`` itself would. ``function`` takes x [N, C, ...],
    weight, bias, dilations, group, kernel shape, pads (all begins, then all ends) and strides.

    Raises GraphScaleError for x with another number of dimensions.
    """
    spatial = weight.dim() - 2
    if x.dim() not in (spatial + 1, spatial + 2):
        raise GraphScaleError(
            f"{type(layer).__name__}: x has {x.dim()} dimensions; give [N, C, ...] or [C, ...] "
            f"with {spatial} spatial ones"
        )
    ends = layer._reversed_padding_repeated_twice  # (begin, end) of the last dimension first
    if layer.padding_mode != "zeros":
        x, ends = functional.pad(x, ends, mode=layer.padding_mode), [0] * 2 * spatial
    pads = [*ends[-2::-2], *ends[::-2]]
    batch = x if x.dim() == spatial + 2 else x[None]
    y = function(
        batch,
        weight,
        bias,
        list(layer.dilation),
        layer.groups,
        list(layer.kernel_size),
        pads,
        list(layer.stride),
    )
    return y if x.dim() == spatial + 2 else y[0]


class FFTConv1d(nn.Conv1d):
    """``torch.nn.Conv1d`` computed by the operator FFTConv, with the same arguments and state dict.

    x [N, C, L] or [C, L] gives [N, F, L_out] or [F, L_out], in float32, float64, float16 or
    bfloat16. It is fbcunn's SpatialConvolutionCuFFT in one dimension.

    Raises:
        GraphScaleError: x has another number of dimensions, or is shorter than the kernel.

    Example:
        >>> FFTConv1d(1, 8, 1024, padding=512)(torch.randn(1, 1, 48_000)).shape
        torch.Size([1, 8, 48001])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(self, input, weight, bias)


class FFTConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` computed by the operator FFTConv, with the same arguments and state dict.

    x [N, C, H, W] or [C, H, W] gives [N, F, H_out, W_out] or [F, H_out, W_out], in float32,
    float64, float16 or bfloat16. The operator chooses by a cost model among a direct convolution,
    Winograd's method and FFTs; `accelerate` chooses by measurement. It is fbcunn's
    SpatialConvolutionCuFFT, with all that torch's layer can do.

    Raises:
        GraphScaleError: x has another number of dimensions, or is smaller than the kernel.

    Example:
        >>> layer = FFTConv2d(64, 64, 31, padding=15, groups=64)
        >>> relative = torch.nn.Conv2d(64, 64, 31, padding=15, groups=64)
        >>> _ = layer.load_state_dict(relative.state_dict())
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(self, input, weight, bias)
