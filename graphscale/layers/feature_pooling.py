"""Pooling over features: p-norms (fbcunn FeatureLPPooling) and maxout (Goodfellow et al. 2013).

Tensors [N, C, ...] go in; each window of neighbouring features gives one number, the norm or the
maximum of its elements. The file holds the operators with ONNX function bodies, torch's versions of
them for forward mode and vmap, their derivatives and the modules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphscale.core.arguments import positive_number, whole_number
from graphscale.layers.autograd import register_derivatives
from graphscale.layers.operator import Operator
from graphscale.layers.windows import fold


def _pooled(x: Tensor, width: int, stride: int) -> list[int]:
    return [x.shape[0], (x.shape[1] - width) // stride + 1, *x.shape[2:]]


def _lp_shape(x: Tensor, width: int, stride: int = 1, power: float = 2.0) -> Tensor:
    return x.new_empty(_pooled(x, width, stride))


# `flat`, x as [N, C, M], and `windows`, its windows of features [N, C_out, width, M].
_WINDOWS = """
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        flat_shape = Constant <value_ints = [0, 0, -1]> ()
        flat = Reshape (x, flat_shape)
        x_shape = Shape (x)
        features = Gather <axis = 0> (x_shape, single)
        width = Constant <value_int: int = @width> ()
        stride = Constant <value_int: int = @stride> ()
        last_start = Sub (features, width)
        steps = Div (last_start, stride)
        outputs = Add (steps, single)
        numbers = Range (nought, outputs, single)
        starts = Mul (numbers, stride)
        column = Unsqueeze (starts, one)
        offsets = Range (nought, width, single)
        places = Add (column, offsets)
        windows = Gather <axis = 1> (flat, places)
        batch = Shape <start = 0, end = 1> (x)
        outer = Shape <start = 2> (x)
        output_list = Reshape (outputs, one)
        y_shape = Concat <axis = 0> (batch, output_list, outer)
"""

feature_lp_pooling = Operator(
    "FeatureLPPooling",
    "(Tensor x, int width, int stride=1, float power=2.0) -> Tensor",
    _lp_shape,
    f"""
    <width, stride: int = 1, power: float = 2.0>(x) => (y) {{
        {_WINDOWS}
        power_float = Constant <value_float: float = @power> ()
        power = CastLike (power_float, x)
        root = Reciprocal (power)
        size = Abs (windows)
        powers = Pow (size, power)
        sums = ReduceSum <keepdims = 0> (powers, two)
        norms = Pow (sums, root)
        y = Reshape (norms, y_shape)
    }}
    """,
)

# grad_x_i = sum over windows j of grad_j sign(x_i) (|x_i| / y_j)^(power - 1), zero where x_i or y_j
# is: the shares of each window, added up where windows overlap.
feature_lp_pooling_grad = Operator(
    "FeatureLPPoolingGrad",
    "(Tensor grad, Tensor x, Tensor y, int width, int stride=1, float power=2.0) -> Tensor",
    lambda grad, x, y, width, stride=1, power=2.0: x.new_empty(x.shape),
    f"""
    <width, stride: int = 1, power: float = 2.0>(grad, x, y) => (grad_x) {{
        {_WINDOWS}
        power_float = Constant <value_float: float = @power> ()
        power = CastLike (power_float, x)
        one_float = Constant <value_float = 1.0> ()
        unit = CastLike (one_float, x)
        exponent = Sub (power, unit)
        flat_grad = Reshape (grad, flat_shape)
        flat_y = Reshape (y, flat_shape)
        window_grad = Unsqueeze (flat_grad, two)
        window_y = Unsqueeze (flat_y, two)
        absolute = Abs (windows)
        zero = Sub (unit, unit)
        used = Greater (absolute, zero)
        safe_size = Where (used, absolute, unit)
        some_y = Greater (window_y, zero)
        safe_y = Where (some_y, window_y, unit)
        ratio = Div (safe_size, safe_y)
        slope = Pow (ratio, exponent)
        signs = Sign (windows)
        signed = Mul (slope, signs)
        share = Mul (signed, window_grad)
        inner = Shape <start = 2> (flat)
        every = Constant <value_ints = [-1]> ()
        list_shape = Concat <axis = 0> (batch, every, inner)
        shares = Reshape (share, list_shape)
        place_shape = Constant <value_ints = [1, -1, 1]> ()
        place_list = Reshape (places, place_shape)
        shares_shape = Shape (shares)
        all_places = Expand (place_list, shares_shape)
        nothing = Mul (flat, zero)
        sums = ScatterElements <axis = 1, reduction = "add"> (nothing, all_places, shares)
        grad_x = Reshape (sums, x_shape)
    }}
    """,
)

# The library's operator has a second, optional output, the index of the maximum; it is not used
# here.
maxout = Operator(
    "Maxout",
    "(Tensor x, int width, int stride) -> Tensor",
    lambda x, width, stride: x.new_empty(_pooled(x, width, stride)),
    f"""
    <width, stride>(x) => (y) {{
        {_WINDOWS}
        maximum = ReduceMax <keepdims = 0> (windows, two)
        y = Reshape (maximum, y_shape)
    }}
    """,
)

# grad goes to the first maximum of each window.
maxout_grad = Operator(
    "MaxoutGrad",
    "(Tensor grad, Tensor x, int width, int stride) -> Tensor",
    lambda grad, x, width, stride: x.new_empty(x.shape),
    f"""
    <width, stride>(grad, x) => (grad_x) {{
        {_WINDOWS}
        within = ArgMax <axis = 2, keepdims = 0> (windows)
        from = Add (within, column)
        flat_grad = Reshape (grad, flat_shape)
        zero_float = Constant <value_float = 0.0> ()
        zero = CastLike (zero_float, x)
        every_place = Shape (flat)
        nothing = Expand (zero, every_place)
        sums = ScatterElements <axis = 1, reduction = "add"> (nothing, from, flat_grad)
        grad_x = Reshape (sums, x_shape)
    }}
    """,
)


def _lp_in_torch(x: Tensor, width: int, stride: int, power: float) -> Tensor:
    size = x.unfold(1, width, stride).abs()
    # Dividing by the largest keeps powers from overflowing and, as a constant, changes no gradient.
    largest = size.detach().amax(-1, keepdim=True)
    used = size != 0
    ratio = torch.where(used, size, 1) / torch.where(largest != 0, largest, 1)
    total = torch.where(used, ratio**power, 0).sum(-1)
    some = total != 0
    return torch.where(some, torch.where(some, total, 1) ** (1 / power), 0) * largest[..., 0]


def _lp_slope(windows: Tensor, y: Tensor, power: float) -> Tensor:
    """dy_j / dx_i = sign(x_i) (|x_i| / y_j)^(power - 1); zero where x_i or y_j is zero."""
    norms = y[..., None]
    used = (windows != 0) & (norms != 0)
    size = torch.where(used, windows.abs(), 1)
    return torch.where(
        used, windows.sign() * (size / torch.where(used, norms, 1)) ** (power - 1), 0
    )


def _lp_gradient_in_torch(
    grad: Tensor, x: Tensor, y: Tensor, width: int, stride: int, power: float
) -> Tensor:
    shares = grad[..., None] * _lp_slope(x.unfold(1, width, stride), y, power)
    return fold(shares, x.shape[1], 1, stride)


def _setup_context_lp(ctx, inputs, output: Tensor) -> None:
    x, *ctx.attributes = inputs
    ctx.save_for_backward(x, output)


def _backward_lp(ctx, grad: Tensor):
    x, y = ctx.saved_tensors
    return feature_lp_pooling_grad(grad, x, y, *ctx.attributes), None, None, None


# Derivatives of grad_x_i = sum over j of grad_j s_ij, s_ij the slope of _lp_slope, by grad, x and
# y.
def _setup_context_lp_gradient(ctx, inputs, output: Tensor) -> None:
    grad, x, y, *ctx.attributes = inputs
    ctx.save_for_backward(grad, x, y)


def _backward_lp_gradient(ctx, grad_x: Tensor):
    grad, x, y = ctx.saved_tensors
    width, stride, power = ctx.attributes
    windows = x.unfold(1, width, stride)
    slope = _lp_slope(windows, y, power)
    size = torch.where(windows != 0, windows.abs(), 1)
    norms = torch.where(y != 0, y, 1)
    grad_grad = (grad_x.unfold(1, width, stride) * slope).sum(-1)
    grad_y = (1 - power) * grad * grad_grad / norms
    bend = (power - 1) * slope.abs() / size * grad[..., None]
    spread = fold(bend, x.shape[1], 1, stride)
    return grad_grad, grad_x * spread, grad_y, None, None, None


def _largest_place(x: Tensor, width: int, stride: int) -> Tensor:
    """The place of the first maximum within each window of features."""
    return x.detach().unfold(1, width, stride).argmax(-1, keepdim=True)


def _maxout_in_torch(x: Tensor, width: int, stride: int) -> Tensor:
    place = _largest_place(x, width, stride)
    return x.unfold(1, width, stride).gather(-1, place)[..., 0]


def _maxout_gradient_in_torch(grad: Tensor, x: Tensor, width: int, stride: int) -> Tensor:
    nothing = x.new_zeros(*grad.shape, width)
    shares = nothing.scatter(-1, _largest_place(x, width, stride), grad[..., None])
    return fold(shares, x.shape[1], 1, stride)


def _setup_context_maxout(ctx, inputs, output: Tensor) -> None:
    x, *ctx.attributes = inputs
    ctx.save_for_backward(x)


def _backward_maxout(ctx, grad: Tensor):
    (x,) = ctx.saved_tensors
    return maxout_grad(grad, x, *ctx.attributes), None, None


# The gradient is linear in grad; x only decides to which feature of a window grad goes.
def _setup_context_maxout_gradient(ctx, inputs, output: Tensor) -> None:
    _, x, *ctx.attributes = inputs
    ctx.save_for_backward(x)


def _backward_maxout_gradient(ctx, grad_x: Tensor):
    (x,) = ctx.saved_tensors
    width, stride = ctx.attributes
    place = _largest_place(x, width, stride)
    return grad_x.unfold(1, width, stride).gather(-1, place)[..., 0], None, None, None


register_derivatives(feature_lp_pooling, _lp_in_torch, _backward_lp, _setup_context_lp)
register_derivatives(
    feature_lp_pooling_grad,
    _lp_gradient_in_torch,
    _backward_lp_gradient,
    _setup_context_lp_gradient,
)
register_derivatives(maxout, _maxout_in_torch, _backward_maxout, _setup_context_maxout)
register_derivatives(
    maxout_grad,
    _maxout_gradient_in_torch,
    _backward_maxout_gradient,
    _setup_context_maxout_gradient,
)


class FeatureLPPooling(nn.Module):
    """p-norms of windows of features (fbcunn FeatureLPPooling).

    x [N, C, ...] gives [N, (C - width) // stride + 1, ...], in float32, float64, float16 or
    bfloat16: y_j = (sum over window j of |x_i|^power)^(1 / power). ``torch.nn.LPPool1d`` sums
    x^power instead, which differs where the power is odd and x negative. With ``batch_mode=False``
    x is [C, ...].

    Raises:
        GraphScaleError: width, stride or power is not positive, or C is smaller than the width.

    Example:
        >>> FeatureLPPooling(2, stride=2)(torch.tensor([[3.0, 4.0, -5.0, 12.0]]))
        tensor([[ 5., 13.]])
    """

    def __init__(
        self, width: int, stride: int = 1, power: float = 2.0, batch_mode: bool = True
    ) -> None:
        super().__init__()
        self.width = whole_number("FeatureLPPooling: width", width, 1)
        self.stride = whole_number("FeatureLPPooling: stride", stride, 1)
        self.power = positive_number("FeatureLPPooling: power", power)
        self.batch_mode = batch_mode

    def forward(self, x: Tensor) -> Tensor:
        """Pool x [N, C, ...], or [C, ...] without ``batch_mode``."""
        if self.batch_mode:
            return feature_lp_pooling(x, self.width, self.stride, self.power)
        return feature_lp_pooling(x[None], self.width, self.stride, self.power)[0]

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"width={self.width}, stride={self.stride}, power={self.power}"


class Maxout(nn.Module):
    """Maxima of windows of features (Goodfellow et al. 2013).

    x [N, C, ...] gives [N, (C - width) // stride + 1, ...], in float32, float64, float16 or
    bfloat16. ``stride`` is ``width`` by default, so that windows do not overlap. For x >= 0 it is
    the limit of `FeatureLPPooling` for an infinite power.

    Raises:
        GraphScaleError: width or stride is not positive, or C is smaller than the width.

    Example:
        >>> Maxout(2)(torch.tensor([[3.0, 4.0, -5.0, -12.0]]))
        tensor([[ 4., -5.]])
    """

    def __init__(self, width: int, stride: int | None = None) -> None:
        super().__init__()
        self.width = whole_number("Maxout: width", width, 1)
        self.stride = self.width if stride is None else whole_number("Maxout: stride", stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool x [N, C, ...]."""
        return maxout(x, self.width, self.stride)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"width={self.width}, stride={self.stride}"
