"""A whole training step as one ONNX graph: forward, loss, gradients and SGD update."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from graphscale.layers.export import export


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
    feeds the outputs back. Raises GraphScaleError when torch cannot export the step.
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

    def step(x, target, *parameters):
        parameters = [value.detach().requires_grad_() for value in parameters]
        named = {f"network.{name}": value for name, value in zip(names, parameters)}
        value = functional_call(objective, named, (x, target))
        gradients = torch.autograd.grad(value, parameters)
        with torch.no_grad():
            updated = [p - learning_rate * g for p, g in zip(parameters, gradients)]
        return (value.detach(), *updated)

    traced = make_fx(step)(*example, *values)
    export(
        traced,
        (*example, *values),
        path,
        input_names=["x", "target", *names],
        output_names=["loss", *(f"{name}.updated" for name in names)],
    )
    return names
