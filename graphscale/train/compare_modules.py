"""Whether two modules compute the same function of their weights and inputs."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from .trace_module import Example

# Norm of the difference relative to the norm of the reference. Deep networks amplify rounding to
# 1e-4; a padding on the wrong side is off by a hundredth and more.
_TOLERANCE = 1e-3


def difference(module: nn.Module, reference: nn.Module, example: Example) -> str | None:
    """Why `module` does not compute what `reference` does, or None if it does.

    Both run in evaluation mode on the example with weights drawn at random, so that a branch whose
    last scale is still zero counts too. The modules' own weights are not touched. `reference` takes
    the example's tensors one by one; weights that bear the same name in both are the same.
    """
    weights = _drawn(reference, set(module.state_dict()))
    tensors = example.tensors
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in weights.values()):
        # Too coarse to tell a wrong padding from rounding.
        module, reference = copy.deepcopy(module).float(), copy.deepcopy(reference).float()
        example = example.map(_single)
        weights = {name: _single(tensor) for name, tensor in weights.items()}
        tensors = example.tensors
    modes = [(each, each.training) for each in (*module.modules(), *reference.modules())]
    try:
        module.eval()
        reference.eval()
        with torch.no_grad():
            wanted = functional_call(reference, weights, tuple(tensors))
            found = functional_call(module, weights, example.args, example.kwargs)
    except Exception as error:
        text = " ".join(str(error).split())
        return f"its forward does not run at the pre-train size ({text[:300]})"
    finally:
        for each, training in modes:
            each.training = training
    return _outputs_differ(_leaves(found), _leaves(wanted))


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _leaves(outputs: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _drawn(reference: nn.Module, names: Container[str]) -> Mapping[str, torch.Tensor]:
    """Random weights that keep activations in range: He's for kernels, near one for vectors."""
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, tensor in reference.state_dict().items():
        if not tensor.is_floating_point() or name not in names:
            continue
        if tensor.ndim > 1:
            numbers = torch.randn(tensor.shape, generator=generator)
            numbers *= (2 * len(tensor) / tensor.numel()) ** 0.5
        else:
            numbers = torch.rand(tensor.shape, generator=generator) + 0.5
        drawn[name] = numbers.to(tensor)
    return drawn


def _outputs_differ(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> str | None:
    if [each.shape for each in found] != [each.shape for each in wanted]:
        return "its outputs have other shapes than the planned network's"
    for one, other in zip(found, wanted):
        if not other.is_floating_point():
            if not torch.equal(one, other):
                return "its outputs are not the planned network's"
            continue
        one, other = one.double(), other.double()
        off = torch.linalg.vector_norm(one - other)
        if not off <= _TOLERANCE * torch.linalg.vector_norm(other):
            return "its outputs are not the planned network's"
    return None
