"""A whole training step as one ONNX graph: forward, loss, gradients and SGD update."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from graphscale.core.errors import GraphScaleError
from graphscale.layers.export import export
from graphscale.layers.fft_conv import fft_conv_grad_input, fft_conv_grad_weight

_ATEN = torch.ops.aten
# What torch's exporter writes wrongly in training: of losses it takes the weight that a mean is
# divided by as 1, and of batch normalisation the running statistics.
_WRITTEN_WRONGLY = [
    _ATEN.nll_loss_forward,
    _ATEN.nll_loss2d_forward,
    _ATEN.native_batch_norm,
    _ATEN._native_batch_norm_legit,
]


def _convolution_backward(
    grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask
):
    if transposed:
        return NotImplemented
    spatial = list(weight.shape[2:])
    window = dilation, groups, spatial, [*padding, *padding], stride
    return (
        fft_conv_grad_input(grad, weight, x, *window) if mask[0] else None,
        fft_conv_grad_weight(grad, x, weight, *window) if mask[1] else None,
        grad.sum([0, *range(2, grad.dim())]) if mask[2] else None,
    )


def _decompositions() -> dict[torch._ops.OperatorBase, Callable]:
    """torch's own, of gradients and of what its exporter writes wrongly; convolutions' are ours."""
    every = core_aten_decompositions()
    gradients = {op: every[op] for op in every if "backward" in str(op)}
    return {
        **gradients,
        **get_decompositions(_WRITTEN_WRONGLY),
        _ATEN.convolution_backward.default: _convolution_backward,
    }


def export_training_step(
    module: nn.Module,
    loss: nn.Module,
    example: tuple[torch.Tensor, torch.Tensor],
    path: str | os.PathLike[str],
    learning_rate: float,
) -> list[str]:
    """Write a model that takes (x, target, parameters) and gives (loss, updated parameters).

    ``example`` is (x, target), whose shapes the model keeps; ``loss(module(x), target)`` is what is
    minimised, by p - learning_rate * gradient. Parameters of ``module`` and of ``loss`` come as
    inputs and outputs of the model, in the order of the names that are returned; a training loop
    feeds the outputs back. Buffers, such as BatchNorm's running statistics, stay what they are.
    Raises GraphScaleError when torch cannot export the step, or a gradient is sparse.
    """
    network = nn.ModuleDict({"module": module, "loss": loss})
    names = [name for name, value in network.named_parameters() if value.requires_grad]
    values = [network.get_parameter(name).detach().clone() for name in names]

    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, target):
            return self.network["loss"](self.network["module"](x), target)

    objective = Objective()
    buffers = {f"network.{name}": value.clone() for name, value in network.named_buffers()}

    def step(x, target, *parameters):
        parameters = [value.detach().requires_grad_() for value in parameters]
        named = {f"network.{name}": value for name, value in zip(names, parameters)}
        value = functional_call(objective, named | buffers, (x, target))
        gradients = torch.autograd.grad(value, parameters)
        for name, gradient in zip(names, gradients):
            if gradient.is_sparse:
                raise GraphScaleError(
                    f"the gradient of {name!r} is sparse, which ONNX has not; "
                    "make its layer with sparse=False"
                )
        with torch.no_grad():
            updated = [p - learning_rate * g for p, g in zip(parameters, gradients)]
        return (value.detach(), *updated)

    traced = make_fx(step, decomposition_table=_decompositions())(*example, *values)
    export(
        traced,
        (*example, *values),
        path,
        input_names=["x", "target", *names],
        output_names=["loss", *(f"{name}.updated" for name in names)],
    )
    return names
