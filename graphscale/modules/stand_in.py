"""An imported graph as the replacement for a module whose class cannot take the plan's sizes.

In: the network that `load` made of the shrunk graph, and the target module. Out: the network with
the module's modes, frozen weights and memory formats, and a text for the user on what it lacks.
Growing the network gives a module of the target's class again.
"""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import nn

from graphscale.convert.network import Network
from graphscale.core.plan import Plan
from graphscale.modules.keep_dropout import dropped_layers, lost_layers
from graphscale.modules.module_state import (
    copy_without_weights,
    fill,
    memory_formats,
    tensors_of,
)


class HiddenTarget:
    """Holds the target module for the network that replaces it.

    The wrapper hides the module from torch: it is no submodule of the network.

    Attributes:
        module: The target; tensors that the network holds have shape (0,) in it.
        formats: Memory formats of the target's tensors, by name.
    """

    def __init__(self, module: nn.Module, names: Container[str]) -> None:
        self.module = copy_without_weights(module, names)
        self.formats = memory_formats(module)


def stand_in(
    network: Network, module: nn.Module, plan: Plan, names: Container[str]
) -> tuple[Network, str]:
    """Let `network` replace `module`, and remember it for growing.

    Args:
        network: The shrunk graph as `load` made it; changed in place.
        module: The target.
        plan: The plan, in which weights have the network's names.
        names: Names of the graph's initializers.

    Returns:
        The network, and the end of a warning that says what the network lacks.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in network.named_parameters():
        # A weight that is neither one of the module's nor computed from one is a constant in it.
        trained = own[name].requires_grad if name in own else name in plan.folded
        parameter.requires_grad_(trained)
    network.train(module.training)
    wanted = set(memory_formats(module).values())
    for form, ndim in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if form in wanted:
            tensors = {n: t for n, t in tensors_of(network).items() if t.ndim == ndim}
            fill(network, tensors, dict.fromkeys(tensors, form))
    learned = [name for name, each in network.named_parameters() if each.requires_grad]
    strange = [name for name in learned if name not in own]
    if not strange:
        network.graphscale_target = HiddenTarget(module, names)
    return network, _lacks(module, strange)


def _lacks(module: nn.Module, strange: list[str]) -> str:
    """The parts of the module that the network does not have, as the end of a sentence."""
    parts = ["the class's attributes and methods", "parts that run only in training"]
    kept = dropped_layers(module)
    if kept:
        text = f"; its {len(kept)} dropout and drop-path layers work in training mode"
    else:
        text = ""
    lost = lost_layers(module)
    if lost:
        parts.append(f"the randomness of {', '.join(map(repr, lost[:3]))}")
    text += f". It lacks {', '.join(parts[:-1])} and {parts[-1]}"
    if strange:
        text += (
            f". Its forward computes {len(strange)} weights, such as {strange[0]!r}, which the "
            "network trains directly, so that growing gives an imported network too, not the class"
        )
    return text
