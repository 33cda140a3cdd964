"""Derivatives of layers that are linear in x and in weight: three operators made of one another.

In go the operator of the forward pass, those of its gradients to x and to weight, and their
decompositions; they are registered with torch, so that derivatives of any order work.
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
    """Give the three operators of such a layer their gradients, all made of one another.

    forward(x, weight, *attributes), grad_input(grad, weight, x, *attributes) and
    grad_weight(grad, x, weight, *attributes), whose last tensors lend their shape only; where
    ``grad_bias`` gives the gradient to a bias, forward takes that after weight. They call one
    another with the first ``shared`` attributes (all, by default), which ``resolve`` makes of x,
    weight and the attributes of forward. What forward clips to ``bounds`` of its attributes passes
    no gradient. ``decompositions`` are those of the three operators, for `register_derivatives`.
    """
    bias = () if grad_bias is None else (None,)
    count = 2 + len(bias)

    def keep(ctx, inputs, output) -> None:
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

    def keep_gradient(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])
        given = inputs[2:]
        ctx.attributes = given[1:][:shared]
        ctx.rest = (None,) * len(given)

    def backward_grad_input(ctx, to_x: Tensor):
        grad, weight = ctx.saved_tensors
        to_grad = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad = forward(to_x, weight, *bias, *ctx.attributes)
        if ctx.needs_input_grad[1]:
            to_weight = grad_weight(grad, to_x, weight, *ctx.attributes)
        return to_grad, to_weight, *ctx.rest

    def backward_grad_weight(ctx, to_weight: Tensor):
        grad, x = ctx.saved_tensors
        to_grad = to_x = None
        if ctx.needs_input_grad[0]:
            to_grad = forward(x, to_weight, *bias, *ctx.attributes)
        if ctx.needs_input_grad[1]:
            to_x = grad_input(grad, to_weight, x, *ctx.attributes)
        return to_grad, to_x, *ctx.rest

    in_torch, grad_input_in_torch, grad_weight_in_torch = decompositions
    register_derivatives(forward, in_torch, backward, keep)
    register_derivatives(grad_input, grad_input_in_torch, backward_grad_input, keep_gradient)
    register_derivatives(grad_weight, grad_weight_in_torch, backward_grad_weight, keep_gradient)
