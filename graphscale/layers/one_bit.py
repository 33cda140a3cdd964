"""Gradients in one bit per element, with error feedback (fbcunn OneBitQuantization).

`OneBitQuantize` turns a gradient into 32-bit words and two numbers per row, 32 times fewer bits to
send to another machine; what the bits leave out is added to the next gradient. `OneBitDequantize`
turns them back. The method is that of Seide, Fu, Droppo, Li and Yu, '1-bit stochastic gradient
descent', Interspeech 2014. The file holds the operators with ONNX function bodies and the modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphscale.core.arguments import whole_number, whole_numbers
from graphscale.core.errors import GraphScaleError
from graphscale.layers.autograd import register_derivatives
from graphscale.layers.operator import Operator

_BITS = 32  # of a word


def _quantize_shape(gradient: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = gradient.shape
    words = gradient.new_empty(rows, (columns + _BITS - 1) // _BITS, dtype=torch.uint32)
    return words, gradient.new_empty(rows, 2), gradient.new_empty(rows, columns)


# The body's three parts: v = gradient + residual and the means of its elements >= 0 and < 0; what
# is left of v without its row's mean; the signs, padded to whole words, as sums of powers of two.
one_bit_quantize = Operator(
    "OneBitQuantize",
    "(Tensor gradient, Tensor residual) -> (Tensor, Tensor, Tensor)",
    _quantize_shape,
    """
    (gradient, residual) => (words, scales, new_residual) {
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        zero = Constant <value_ints = [0]> ()
        word = Constant <value_ints = [32]> ()
        rest = Constant <value_ints = [31]> ()
        zero_float = Constant <value_float = 0.0> ()
        nothing = CastLike (zero_float, gradient)
        v = Add (gradient, residual)
        set = GreaterOrEqual (v, nothing)
        upper = Where (set, v, nothing)
        lower = Where (set, nothing, v)
        upper_sum = ReduceSum (upper, one)
        lower_sum = ReduceSum (lower, one)
        ones_float = Constant <value_float = 1.0> ()
        unit = CastLike (ones_float, gradient)
        is_upper = CastLike (set, gradient)
        upper_count = ReduceSum (is_upper, one)
        columns = Shape <start = 1, end = 2> (gradient)
        all_count = CastLike (columns, gradient)
        lower_count = Sub (all_count, upper_count)
        upper_divisor = Max (upper_count, unit)
        lower_divisor = Max (lower_count, unit)
        upper_mean = Div (upper_sum, upper_divisor)
        lower_mean = Div (lower_sum, lower_divisor)
        scales = Concat <axis = 1> (upper_mean, lower_mean)
        meaning = Where (set, upper_mean, lower_mean)
        new_residual = Sub (v, meaning)
        bits = Cast <to = 7> (set)
        more = Add (columns, rest)
        count = Div (more, word)
        full = Mul (count, word)
        lacking = Sub (full, columns)
        margins = Concat <axis = 0> (zero, lacking)
        padded = Pad (bits, margins, , one)
        shape = Concat <axis = 0> (zero, count, word)
        apart = Reshape (padded, shape)
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        thirty_two = Constant <value_int = 32> ()
        exponent = Range (nought, thirty_two, single)
        shift = Cast <to = 13> (exponent)
        lowest = Cast <to = 13> (single)
        unsigned_value = BitShift <direction = "LEFT"> (lowest, shift)
        value = Cast <to = 7> (unsigned_value)
        valued = Mul (apart, value)
        sums = ReduceSum <keepdims = 0> (valued, two)
        words = Cast <to = 12> (sums)
    }
    """,
)

one_bit_dequantize = Operator(
    "OneBitDequantize",
    "(Tensor words, Tensor scales, int columns) -> Tensor",
    lambda words, scales, columns: scales.new_empty(scales.shape[0], columns),
    """
    <columns>(words, scales) => (gradient) {
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        thirty_two = Constant <value_int = 32> ()
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        flat = Constant <value_ints = [0, -1]> ()
        exponent = Range (nought, thirty_two, single)
        shift = Cast <to = 13> (exponent)
        wide = Cast <to = 13> (words)
        apart = Unsqueeze (wide, two)
        shifted = BitShift <direction = "RIGHT"> (apart, shift)
        signed = Cast <to = 7> (shifted)
        pair = Constant <value_int = 2> ()
        bit = Mod (signed, pair)
        row = Reshape (bit, flat)
        columns = Constant <value_int: int = @columns> ()
        end = Reshape (columns, one)
        used = Slice (row, zero, end, one)
        set = Cast <to = 9> (used)
        upper = Slice (scales, zero, one, one)
        lower = Slice (scales, one, two, one)
        gradient = Where (set, upper, lower)
    }
    """,
)


register_derivatives(one_bit_quantize, None)
register_derivatives(one_bit_dequantize, None)


class OneBitQuantize(nn.Module):
    """Quantises a gradient to one bit per element, with error feedback (fbcunn OneBitQuantization).

    A gradient of float32, float64, float16 or bfloat16 is taken as a matrix [R, C]: the first
    dimension are the rows, all others the columns; a vector, such as a bias's gradient, is one row.
    The results are words, uint32 [R, ceil(C / 32)], and scales [R, 2] of the gradient's type. Bit
    i of word j is set where gradient + residual is not negative in column 32 j + i; the scales are
    the means of the elements with a set bit and of those without.

    ``residual``, a buffer of the gradient's shape, is the quantisation error so far, which the next
    call adds to its gradient. In a row with an infinity or NaN the scales are not finite either,
    so that the receiver can leave out that step, and the residual stays. No gradient flows through
    this module.

    Raises:
        GraphScaleError: the gradient has another shape than at the call before.

    Example:
        >>> words, scales = OneBitQuantize()(torch.tensor([1.0, 3.0, -2.0]))
        >>> OneBitDequantize(3)(words, scales)
        tensor([[ 2.,  2., -2.]])
    """

    residual: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("residual", None)

    @torch.no_grad()  # and not detach(), which would hide a tangent from the operator's refusal
    def forward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Words and scales of gradient + residual; what they leave out is the new residual."""
        before = self.residual
        if before is None:
            before = torch.zeros_like(gradient)
        if before.shape != gradient.shape:
            raise GraphScaleError(
                f"OneBitQuantize: the gradient is {list(gradient.shape)} and its residual "
                f"{list(before.shape)}; use one module per parameter"
            )
        rows = _as_matrix(gradient)
        before = _as_matrix(before.to(gradient.device, gradient.dtype))
        words, scales, after = one_bit_quantize(rows, before)
        finite = torch.isfinite(scales).all(1, keepdim=True)
        # To ask whether a row is not finite waits for a GPU, and breaks a compiled graph in two.
        if not scales.is_cpu or torch.compiler.is_compiling() or not finite.all():
            after = torch.where(finite, after, before)
        self.residual = after.view(gradient.shape)
        return words, scales

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Load the residual, which a module or a checkpoint has only after a first call."""
        saved = state_dict.get(f"{prefix}residual")
        self.residual = None if saved is None else torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _as_matrix(gradient: Tensor) -> Tensor:
    return gradient.reshape(1, -1) if gradient.dim() < 2 else gradient.flatten(1)


class OneBitDequantize(nn.Module):
    """Turns words and scales of `OneBitQuantize` back into a gradient.

    words, uint32 [R, ceil(C / 32)], and scales [R, 2] of float32, float64, float16 or bfloat16 give
    each element the scale that its bit chooses.

    Args:
        columns: C, for a result [R, C]; or the gradient's shape, for a result of that shape.

    Raises:
        GraphScaleError: the words are not those of C columns.
    """

    def __init__(self, columns: int | Sequence[int]) -> None:
        super().__init__()
        self.shape = None
        if not isinstance(columns, tuple | list):
            self.columns = whole_number("OneBitDequantize: columns", columns, 0)
            return
        wanted = "the number of columns, or the gradient's shape"
        self.shape = tuple(columns)
        if self.shape:  # not that of a single number
            self.shape = whole_numbers("OneBitDequantize: columns", columns, wanted, 0)
        self.columns = math.prod(self.shape[1:] if len(self.shape) > 1 else self.shape)

    def forward(self, words: Tensor, scales: Tensor) -> Tensor:
        """The gradient that words and scales stand for, in the scales' type."""
        rows = one_bit_dequantize(words, scales, self.columns)
        return rows if self.shape is None else rows.view(self.shape)
