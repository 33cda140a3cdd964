"""Convolutions of many filters on small maps, each pass one matrix product of torch.

`matrix_convolutions` is a context in which torch.conv2d computes a pass by a matrix product where
that is faster than oneDNN. It changes no module. The late layers of a shrunk network are the case:
512 filters of 2×2 on maps of 5×5 pixels. Their weights (4 MiB) are larger than everything else of
the layer, and oneDNN copies them into an order of its own in every step, the gradient to them from
that order back. The matrix product reads the weights where they lie, and copies the image's windows
instead (R·K floats of R output pixels and K = channels · kernel elements, beside F·K weights), so
that it wins where the filters F outnumber the pixels R. Measured on one core in channels_last,
batch 4, milliseconds of torch and of the product: forward 2.7 and 2.1, gradient to the input 3.0
and 2.1, gradient to the weight 6 to 9 and 2.3 to 3.7.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from graphscale.layers.operator import is_transformed

_CHANNELS_LAST = torch.channels_last
# Smaller weights stay in the second-level cache, where copying them costs little.
_MIN_WEIGHTS = 1 << 18
# A pass takes the product where the filters are at least this many times the pixels. The gradient
# to the weight, which torch copies twice, gains from fewer filters on.
_MIN_RATIOS = {"forward": 1.5, "grad_input": 1.5, "grad_weight": 0.75}

_Pair = Sequence[int]


def suits(pass_: str, x: Tensor, weight: Tensor, strides: _Pair, pads: _Pair) -> bool:
    """Whether a pass is better a matrix product, by the sizes; without groups and dilations.

    Args:
        pass_: 'forward', 'grad_input' or 'grad_weight'.
        x, weight: [N, C, H, W] and [F, C, kernel height, kernel width].
        strides, pads: Height and width; both ends are padded alike.
    """
    pixels = x.shape[0]
    for size, kernel, stride, pad in zip(x.shape[2:], weight.shape[2:], strides, pads, strict=True):
        pixels *= max((size + 2 * pad - kernel) // stride + 1, 0)
    if pixels == 0 or weight.numel() < _MIN_WEIGHTS:
        return False
    return weight.shape[0] >= _MIN_RATIOS[pass_] * pixels


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, strides: _Pair, pads: _Pair) -> Tensor:
    """The convolution of x [N, C, H, W], in the memory format of x."""
    windows, height, width = _windows(x, weight, strides, pads)
    matrix = _matrix(weight).t()
    y = torch.mm(windows, matrix) if bias is None else torch.addmm(bias, windows, matrix)
    return in_format_of(x, y.view(x.shape[0], height, width, -1).permute(0, 3, 1, 2))


def grad_input(grad: Tensor, x: Tensor, weight: Tensor, strides: _Pair, pads: _Pair) -> Tensor:
    """The gradient to x for a gradient to the output, in the memory format of x."""
    batch, channels, *sizes = x.shape
    out_height, out_width = grad.shape[2:]
    kernel_height, kernel_width = weight.shape[2:]
    windows = torch.mm(_rows(grad), _matrix(weight)).view(
        batch, out_height, out_width, *_kernel_last(weight)
    )
    if not _is_channels_last(weight):
        windows = windows.permute(0, 1, 2, 4, 5, 3)
    padded = [size + 2 * pad for size, pad in zip(sizes, pads, strict=True)]
    to_x = grad.new_zeros(batch, *padded, channels)
    # Each element of the kernel has its own grid of pixels in x, on which its windows are added.
    for row in range(kernel_height):
        rows = slice(row, row + (out_height - 1) * strides[0] + 1, strides[0])
        for column in range(kernel_width):
            columns = slice(column, column + (out_width - 1) * strides[1] + 1, strides[1])
            to_x[:, rows, columns] += windows[:, :, :, row, column]
    to_x = to_x[:, pads[0] : pads[0] + sizes[0], pads[1] : pads[1] + sizes[1]]
    return in_format_of(x, to_x.permute(0, 3, 1, 2))


def grad_weight(grad: Tensor, x: Tensor, weight: Tensor, strides: _Pair, pads: _Pair) -> Tensor:
    """The gradient to weight for a gradient to the output, in the memory format of weight."""
    windows, _, _ = _windows(x, weight, strides, pads)
    to_weight = torch.mm(_rows(grad).t(), windows).view(weight.shape[0], *_kernel_last(weight))
    return to_weight.permute(0, 3, 1, 2) if _is_channels_last(weight) else to_weight


def in_format_of(x: Tensor, result: Tensor) -> Tensor:
    """`result` in the memory format of x, which is the one that torch's own layers return."""
    channels_last = _is_channels_last(x)
    return result.contiguous(
        memory_format=_CHANNELS_LAST if channels_last else torch.contiguous_format
    )


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor is in channels_last; one that is contiguous as well is not."""
    return not tensor.is_contiguous() and tensor.is_contiguous(memory_format=_CHANNELS_LAST)


def _kernel_last(weight: Tensor) -> tuple[int, int, int]:
    """The sizes of a filter's axes, in the order in which they lie in memory."""
    _, channels, height, width = weight.shape
    return (height, width, channels) if _is_channels_last(weight) else (channels, height, width)


def _matrix(weight: Tensor) -> Tensor:
    """The weights as a matrix [F, K], without a copy if they are dense."""
    turned = weight.permute(0, 2, 3, 1) if _is_channels_last(weight) else weight
    return turned.reshape(weight.shape[0], -1)


def _rows(grad: Tensor) -> Tensor:
    """A gradient to the output as a matrix [R, F], without a copy in channels_last."""
    return grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])


def _windows(x: Tensor, weight: Tensor, strides: _Pair, pads: _Pair) -> tuple[Tensor, int, int]:
    """The window under each output pixel as a row of [R, K], and the height and width of the map.

    A row has the order of the weights in memory.
    """
    if any(pads):
        x = functional.pad(x, (pads[1], pads[1], pads[0], pads[0]))
    batch, channels, *sizes = x.shape
    kernel = weight.shape[2:]
    height, width = (
        (size - taps) // stride + 1
        for size, taps, stride in zip(sizes, kernel, strides, strict=True)
    )
    n, c, h, w = x.stride()
    # A view in which windows overlap: pixels of the output first, then a filter's elements.
    outer, inner = (n, h * strides[0], w * strides[1]), (h, w, c)
    shape = (*kernel, channels)
    if not _is_channels_last(weight):
        inner, shape = (c, h, w), (channels, *kernel)
    view = x.as_strided((batch, height, width, *shape), (*outer, *inner), x.storage_offset())
    return view.reshape(batch * height * width, -1), height, width


class _Convolution(torch.autograd.Function):
    """A convolution, each of whose passes is torch's own or a matrix product, as `suits` says."""

    @staticmethod
    def forward(x, weight, bias, strides: _Pair, pads: _Pair) -> Tensor:
        if suits("forward", x, weight, strides, pads):
            return forward(x, weight, bias, strides, pads)
        return torch.convolution(x, weight, bias, strides, pads, [1, 1], False, [0, 0], 1)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.strides, ctx.pads = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        sizes = ctx.strides, ctx.pads
        passes = {
            "grad_input": (ctx.needs_input_grad[0], grad_input),
            "grad_weight": (ctx.needs_input_grad[1], grad_weight),
        }
        products = {
            name: function(grad, x, weight, *sizes)
            for name, (wanted, function) in passes.items()
            if wanted and suits(name, x, weight, *sizes)
        }
        mask = [wanted and name not in products for name, (wanted, _) in passes.items()]
        to_x = to_weight = None
        if any(mask):
            to_x, to_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, *sizes, [1, 1], False, [0, 0], 1, [*mask, False]
            )
        to_x = products.get("grad_input", to_x)
        to_weight = products.get("grad_weight", to_weight)
        to_bias = grad.sum([0, 2, 3]) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None


class matrix_convolutions(TorchFunctionMode):
    """A context in which torch.conv2d takes matrix products for filters that outnumber pixels.

    It is for training steps on a CPU: calls of torch.nn.Conv2d and torch.nn.functional.conv2d in
    it compute each pass by torch's own convolution or by a matrix product, whichever the sizes
    make faster. The choice depends on sizes alone, so that equal runs give equal bits. No module
    changes: what is trained can be grown, saved and exported as ever. `graphscale train` uses it
    by itself.

    Torch's own convolution also computes other types than float32, groups, dilations, GPUs, and
    whatever is called under autocast, torch.compile, torch.func or a trace.

    Example:
        >>> layer = torch.nn.Conv2d(512, 512, 2)
        >>> with matrix_convolutions():  # 100 pixels, 512 filters
        ...     loss = layer(torch.randn(4, 512, 6, 6)).sum()
        >>> loss.backward()
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Compute a call of torch.conv2d, and pass every other call on."""
        kwargs = kwargs or {}
        if function is torch.conv2d:
            y = _convolve(*args, **kwargs)
            if y is not None:
                return y
        return function(*args, **kwargs)


def _convolve(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor | None:
    """The convolution with the arguments of torch.conv2d; None where torch's own computes it."""
    strides, pads, dilations = _pair(stride), _pair(padding), _pair(dilation)
    if groups != 1 or set(dilations) != {1} or pads is None or input.dim() != 4:
        return None
    if not (input.is_cpu and input.dtype == weight.dtype == torch.float32):
        return None
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if torch.jit.is_tracing() or is_transformed() or type(input) is not Tensor:
        return None
    if not any(suits(name, input, weight, strides, pads) for name in _MIN_RATIOS):
        return None
    return _Convolution.apply(input, weight, bias, strides, pads)


def _pair(value: int | str | _Pair) -> _Pair | None:
    """Two numbers of an argument that may be one; None for a text such as 'same'."""
    if isinstance(value, str):
        return None
    if isinstance(value, int):
        return (value, value)
    return tuple(value) * 2 if len(value) == 1 else tuple(value)
