"""One bit per gradient element, with error feedback (fbcunn OneBitQuantization).

Seide, Fu, Droppo, Li, Yu: 1-bit stochastic gradient descent, Interspeech 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphscale.core.errors import GraphScaleError
from graphscale.layers.operator import Operator

_BITS = 32


def _quantize_shape(gradient: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = gradient.shape
    words = gradient.new_empty(rows, (columns + _BITS - 1) // _BITS, dtype=torch.uint32)
    return words, gradient.new_empty(rows, 2), gradient.new_empty(rows, columns)


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
        keep = Constant <value_ints = [0]> ()
        shape = Concat <axis = 0> (keep, count, word)
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


class OneBitQuantize(nn.Module):
    """Quantises a gradient [R, C] to one bit per element, and keeps the error for the next call.

    Returns words (uint32 [R, ceil(C / 32)]; bit i of word j is column 32 j + i) and scales [R, 2],
    the values of a set and of an unset bit. ``residual``, a buffer, is zero at first.
    """

    residual: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("residual", None)

    def forward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise gradient + residual."""
        if self.residual is None:
            self.residual = torch.zeros_like(gradient)
        if self.residual.shape != gradient.shape:
            raise GraphScaleError(
                f"OneBitQuantize: the gradient is {list(gradient.shape)} and its residual "
                f"{list(self.residual.shape)}; use one module per parameter"
            )
        words, scales, self.residual = one_bit_quantize(gradient, self.residual)
        return words, scales


class OneBitDequantize(nn.Module):
    """The gradient [R, columns] that words and scales of OneBitQuantize stand for."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, words: Tensor, scales: Tensor) -> Tensor:
        """Dequantise."""
        return one_bit_dequantize(words, scales, self.columns)
