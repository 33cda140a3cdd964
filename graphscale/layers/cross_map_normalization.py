"""Local response normalisation across maps (fbcunn CrossMapNormalization).

Tensors [N, C, ...] go in; each number comes out divided by a power of the sum of squares in the
maps around it. The file holds the operators with ONNX function bodies, torch's versions of them for
forward mode and vmap, their derivatives and the module.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from graphscale.core.arguments import real_number, whole_number, wrong
from graphscale.layers.autograd import register_derivatives
from graphscale.layers.operator import Operator

# factor = divisor^-power, divisor = 1 + scale * (sum of x^2 over the `size` maps around each map).
_FACTOR = """
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        half = Constant <value_int = 2> ()
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        size = Constant <value_int: int = @size> ()
        radius = Div (size, half)
        margin = Unsqueeze (radius, zero)
        margins = Concat <axis = 0> (margin, margin)
        x_shape = Shape (x)
        maps = Gather <axis = 0> (x_shape, single)
        numbers = Range (nought, maps, single)
        column = Unsqueeze (numbers, one)
        offsets = Range (nought, size, single)
        places = Add (column, offsets)
        scale_float = Constant <value_float: float = @scale> ()
        scale = CastLike (scale_float, x)
        power_float = Constant <value_float: float = @power> ()
        power = CastLike (power_float, x)
        falling = Neg (power)
        unit_float = Constant <value_float = 1.0> ()
        unit = CastLike (unit_float, x)
        squares = Mul (x, x)
        padded = Pad (squares, margins, , one)
        windows = Gather <axis = 1> (padded, places)
        sums = ReduceSum <keepdims = 0> (windows, two)
        scaled = Mul (scale, sums)
        divisor = Add (unit, scaled)
        factor = Pow (divisor, falling)
"""

cross_map_normalization = Operator(
    "CrossMapNormalization",
    "(Tensor x, int size, float scale=1e-4, float power=0.75) -> Tensor",
    lambda x, size, scale=1e-4, power=0.75: x.new_empty(x.shape),
    f"""
    <size, scale: float = 0.0001, power: float = 0.75>(x) => (y) {{
        {_FACTOR}
        y = Mul (x, factor)
    }}
    """,
)

cross_map_normalization_grad = Operator(
    "CrossMapNormalizationGrad",
    "(Tensor grad, Tensor x, int size, float scale=1e-4, float power=0.75) -> Tensor",
    lambda grad, x, size, scale=1e-4, power=0.75: x.new_empty(x.shape),
    f"""
    <size, scale: float = 0.0001, power: float = 0.75>(grad, x) => (grad_x) {{
        {_FACTOR}
        direct = Mul (grad, factor)
        product = Mul (direct, x)
        share = Div (product, divisor)
        padded_share = Pad (share, margins, , one)
        share_windows = Gather <axis = 1> (padded_share, places)
        shares = ReduceSum <keepdims = 0> (share_windows, two)
        twice = Add (power, power)
        rate = Mul (twice, scale)
        part = Mul (x, shares)
        indirect = Mul (rate, part)
        grad_x = Sub (direct, indirect)
    }}
    """,
)


def _window_sums(value: Tensor, size: int) -> Tensor:
    """Sums of ``value`` [N, C, ...] over the ``size`` maps around each map; outside are zeros."""
    maps_last = functional.pad(value.movedim(1, -1), (size // 2, size // 2))
    return maps_last.unfold(-1, size, 1).sum(-1).movedim(-1, 1)


def _in_torch(x: Tensor, size: int, scale: float, power: float) -> Tensor:
    return x * (1 + scale * _window_sums(x * x, size)) ** -power


def _gradient_in_torch(grad: Tensor, x: Tensor, size: int, scale: float, power: float) -> Tensor:
    divisor = 1 + scale * _window_sums(x * x, size)
    direct = grad * divisor**-power
    return direct - 2 * scale * power * x * _window_sums(direct * x / divisor, size)


def _setup_context(ctx, inputs, output) -> None:
    x, *ctx.attributes = inputs
    ctx.save_for_backward(x)


def _backward(ctx, grad: Tensor):
    (x,) = ctx.saved_tensors
    return cross_map_normalization_grad(grad, x, *ctx.attributes), None, None, None


def _setup_context_gradient(ctx, inputs, output) -> None:
    grad, x, *ctx.attributes = inputs
    ctx.save_for_backward(grad, x)


# Derivatives by grad and x of grad_x = grad d^-power - 2 scale power x S(grad x d^(-power - 1)),
# d = 1 + scale S(x^2). S, the sum over a window of maps, is its own adjoint.
def _backward_gradient(ctx, grad_x: Tensor):
    grad, x = ctx.saved_tensors
    size, scale, power = ctx.attributes
    window_sums = partial(_window_sums, size=size)
    divisor = 1 + scale * window_sums(x * x)
    factor = divisor**-power
    falling = factor / divisor
    products = window_sums(grad_x * x)
    rate = 2 * scale * power
    grad_grad = grad_x * factor - rate * x * falling * products
    share = products * grad * falling
    indirect = (
        x * window_sums(grad_x * grad * falling)
        + grad_x * window_sums(grad * x * falling)
        + share
        - 2 * scale * (power + 1) * x * window_sums(share * x / divisor)
    )
    return grad_grad, -rate * indirect, None, None, None


register_derivatives(cross_map_normalization, _in_torch, _backward, _setup_context)
register_derivatives(
    cross_map_normalization_grad, _gradient_in_torch, _backward_gradient, _setup_context_gradient
)


class CrossMapNormalization(nn.Module):
    """Local response normalisation across maps (fbcunn CrossMapNormalization).

    x [N, C, ...] gives y of the same shape, in float32, float64, float16 or bfloat16:
    y_c = x_c * (1 + scale * sum of x_j^2 over the ``size`` maps around c)^-power, with zeros
    outside of the maps. ``scale`` is not divided by ``size``, so ``torch.nn.LocalResponseNorm(size,
    alpha, beta)`` is ``CrossMapNormalization(size, alpha / size, beta)``.

    Raises:
        GraphScaleError: ``size`` is even or not positive.

    Example:
        >>> CrossMapNormalization(5)(torch.randn(8, 96, 27, 27)).shape
        torch.Size([8, 96, 27, 27])
    """

    def __init__(self, size: int, scale: float = 1e-4, power: float = 0.75) -> None:
        super().__init__()
        self.size = whole_number("CrossMapNormalization: size", size, 1)
        if self.size % 2 == 0:
            raise wrong("CrossMapNormalization: size", size, "an odd whole number")
        self.scale = real_number("CrossMapNormalization: scale", scale)
        self.power = real_number("CrossMapNormalization: power", power)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [N, C, ...]."""
        return cross_map_normalization(x, self.size, self.scale, self.power)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"size={self.size}, scale={self.scale}, power={self.power}"
