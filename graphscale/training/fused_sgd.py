"""`FusedSGD`: torch.optim.SGD whose step reads and writes each weight once.

In: what torch.optim.SGD takes. Out: the same weights up to rounding, and the same state dict.
`graphscale train` uses it on CPUs. Torch's own step goes through all weights five times and makes
two temporary tensors of their size; for a fully-connected layer of 100 million weights that takes
longer than the layer's gradients. Torch's fused step goes through them once, but copies tensors
that are in channels_last, to and fro. Here it gets views of them that lie in its own order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class FusedSGD(torch.optim.SGD):
    """SGD with momentum and weight decay as torch.optim.SGD, by torch's fused kernel.

    Args:
        params: Parameters or groups of them.
        lr, momentum, weight_decay, nesterov: As for torch.optim.SGD.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> FusedSGD(layer.parameters(), lr=0.1, momentum=0.9).defaults["lr"]
        0.1
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step for all parameters that have a gradient; returns what ``closure`` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            gradients = [_laid_out_as(each, each.grad) for each in parameters]
            buffers = []
            if group["momentum"]:
                buffers = [self._momentum(each) for each in parameters]
            sgd(
                [_in_order(each) for each in parameters],
                [_in_order(each) for each in gradients],
                [_in_order(each) for each in buffers] or [None] * len(parameters),
                foreach=False,
                fused=True,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=group["nesterov"],
                maximize=False,
            )
        return loss

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The momentum of a parameter, laid out as it is; zeros before its first step.

        Torch's step starts with a copy of the gradient, which is what zeros lead to.
        """
        state = self.state[parameter]
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = torch.zeros_like(parameter)
        state["momentum_buffer"] = _laid_out_as(parameter, buffer)
        return state["momentum_buffer"]


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` with the strides of `parameter`."""
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


def _in_order(tensor: Tensor) -> Tensor:
    """A view of `tensor` whose axes are in the order in which they lie in memory."""
    if tensor.is_contiguous():
        return tensor
    axes = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.permute(axes)
