"""Derivatives of any order for convolutions and other layers that are linear in x and in weight.

Such a layer has three operators: the forward pass, the gradient to x and the gradient to weight.
The gradients of each are again these three operators with other arguments. `register_gradients`
takes the three and their decompositions, and registers these gradients with torch.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphscale.layers.autograd import register_derivatives
from graphscale.layers.operator import Operator


def register_gradients(
    forward: Operator,
    grad_input: Operator,
    grad_weight: Operator,
    decompositions: tuple[Callable, Callable, Callable],
    grad_bias: Callable[[Tensor], Tensor] | None = None,
    shared: int | None = None,
    resolve: Callable[..., tuple] = lambda x, weight, *attributes: attributes,
    bounds: Callable[..., tuple[float, float] | None] = lambda *attributes: None,
) -> None:
    """Register the gradients of the three operators of a layer that is linear in x and in weight.

    Args:
        forward: Takes (x, weight, *attributes), or (x, weight, bias, *attributes) with
            ``grad_bias``.
        grad_input: Takes (grad, weight, x, *attributes); only the shape of x counts.
        grad_weight: Takes (grad, x, weight, *attributes); only the shape of weight counts.
        decompositions: The three operators written in torch's own, for `register_derivatives`.
        grad_bias: The gradient to the bias for a gradient to the output.
        shared: How many of the attributes, the first ones, the operators hand to one another; all
            by default.
        resolve: Takes x, weight and the attributes of forward; returns the attributes with what
            depends on the sizes of x and weight filled in, such as automatic padding.
        bounds: Takes the attributes of forward; returns the minimum and maximum to which it clips
            its output, or None. Clipped elements pass no gradient.
    """
    bias = () if grad_bias is None else (None,)
    count = 2 + len(bias)

    def setup_context(ctx, inputs, output) -> None:
        x, weight, *_ = inputs
        given = inputs[count:]
        ctx.bounds = bounds(*given)
        ctx.save_for_backward(x, weight, None if ctx.bounds is None else output)
        ctx.attributes = resolve(x, weight, *given)[:shared]
        ctx.rest = (None,) * len(given)

    def backward(ctx, grad: Tensor):
        x, weight, y = ctx.saved_tensors
        if ctx.bounds is not None:
            grad = grad * ((y > ctx.bounds[0]) & (y < ctx.bounds[1]))
        to_x = to_weight = None
        to_bias = bias
        if ctx.needs_input_grad[0]:
            to_x = grad_input(grad, weight, x, *ctx.attributes)
        if ctx.needs_input_grad[1]:
            to_weight = grad_weight(grad, x, weight, *ctx.attributes)
        if bias and ctx.needs_input_grad[2]:
            to_bias = (grad_bias(grad),)
        return to_x, to_weight, *to_bias, *ctx.rest

    def setup_context_of_gradient(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])
        given = inputs[2:]
        ctx.attributes = given[1:][:shared]
        ctx.rest = (None,) * len(given)

    # grad_input is linear in grad and in weight: its gradient to grad is the forward pass.
    def backward_grad_input(ctx, to_x: Tensor):
        grad, weight = ctx.saved_tensors
        to_grad = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad = forward(to_x, weight, *bias, *ctx.attributes)
        if ctx.needs_input_grad[1]:
            to_weight = grad_weight(grad, to_x, weight, *ctx.attributes)
        return to_grad, to_weight, *ctx.rest

    # grad_weight is linear in grad and in x: its gradient to grad is the forward pass, too.
    def backward_grad_weight(ctx, to_weight: Tensor):
        grad, x = ctx.saved_tensors
        to_grad = to_x = None
        if ctx.needs_input_grad[0]:
            to_grad = forward(x, to_weight, *bias, *ctx.attributes)
        if ctx.needs_input_grad[1]:
            to_x = grad_input(grad, to_weight, x, *ctx.attributes)
        return to_grad, to_x, *ctx.rest

    in_torch, grad_input_in_torch, grad_weight_in_torch = decompositions
    register_derivatives(forward, in_torch, backward, setup_context)
    register_derivatives(
        grad_input, grad_input_in_torch, backward_grad_input, setup_context_of_gradient
    )
    register_derivatives(
        grad_weight, grad_weight_in_torch, backward_grad_weight, setup_context_of_gradient
    )
