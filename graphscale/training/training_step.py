"""Export a whole training step as one ONNX graph: forward, loss, gradients and SGD update.

In: a module, a loss module and example tensors. Out: an ONNX file, with which a runtime without
torch can train the module.
"""

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
# torch's exporter is wrong about these in training, so they are decomposed before: a loss divides
# its mean by 1 instead of the sum of weights, batch normalisation uses the running statistics.
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
    """torch's decompositions of gradients and of `_WRITTEN_WRONGLY`, ours of convolutions."""
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
    """Write an ONNX model of one training step by SGD.

    The model takes (x, target, *parameters) and returns (loss, *updated parameters). It minimises
    ``loss(module(x), target)`` by p - learning_rate * gradient. A training loop feeds the updated
    parameters back. Buffers, such as BatchNorm's running statistics, are constants.

    Args:
        module: The network.
        loss: A module that returns a scalar for the network's output and the target. Its parameters
            are trained, too.
        example: (x, target), whose shapes and dtypes the model fixes.
        path: The file to write.
        learning_rate: A constant of the model.

    Returns:
        The names of the parameters, in the order of the model's inputs and outputs.

    Raises:
        GraphScaleError: torch cannot export the step, or a gradient is sparse.
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
