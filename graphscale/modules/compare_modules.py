"""Whether two modules compute the same function of their weights and inputs."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from graphscale.modules.trace_module import Example

_TOLERANCE = 1e-4  # norm of the difference relative to the norm of the reference


def hollow(module: nn.Module, names: Container[str]) -> nn.Module:
    """A copy of the module whose weights in `names` are left empty."""
    memo = {}
    for get in (module.named_parameters, module.named_buffers):
        for name, tensor in get(remove_duplicate=False):
            if name in names:
                empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                if isinstance(tensor, nn.Parameter):
                    empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
                memo[id(tensor)] = empty
    return copy.deepcopy(module, memo)


def difference(module: nn.Module, reference: nn.Module, example: Example) -> str | None:
    """Why `module` does not compute what `reference` does, or None if it does.

    Both run in evaluation mode on the example with weights drawn at random, so that a branch whose
    last scale is still zero counts too; in float64 if their code can, because deep networks amplify
    rounding. `reference` takes the example's tensors one by one; weights that bear the same name in
    both are the same. The modules are left as they are.
    """
    names = set(module.state_dict()) & set(reference.state_dict())
    shapes = {name: tensor for name, tensor in reference.state_dict().items() if name in names}
    module, reference = hollow(module, names).eval(), hollow(reference, names).eval()
    for dtype in (torch.float64, torch.float32):
        weights = _drawn(shapes, dtype)
        fed = example.map(lambda each, dtype=dtype: _converted(each, dtype))
        try:
            with torch.no_grad():
                wanted = functional_call(reference.to(dtype), weights, tuple(fed.tensors))
                found = functional_call(module.to(dtype), weights, fed.args, fed.kwargs)
        except Exception as error:
            failure = " ".join(str(error).split())[:300]
        else:
            return _outputs_differ(_leaves(found), _leaves(wanted))
    return f"its forward does not run at the pre-train size ({failure})"


def _converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _leaves(outputs: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _drawn(shapes: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Mapping[str, torch.Tensor]:
    """Random weights that keep activations in range: He's for kernels, near one for vectors."""
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, like in shapes.items():
        if not like.is_floating_point():
            drawn[name] = like
        elif like.ndim > 1:
            numbers = torch.randn(like.shape, generator=generator, dtype=dtype)
            drawn[name] = (numbers * (2 * len(like) / like.numel()) ** 0.5).to(like.device)
        else:
            numbers = torch.rand(like.shape, generator=generator, dtype=dtype) + 0.5
            drawn[name] = numbers.to(like.device)
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
