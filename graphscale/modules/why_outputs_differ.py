"""Check whether two modules compute the same function of their weights and inputs.

In: an edited module and the network imported from its shrunk graph. Out: None, or the reason why
they differ. Both are run on the same random weights and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from graphscale.modules.computed_weights import ComputedWeights
from graphscale.modules.example import Example
from graphscale.modules.module_state import copy_without_weights
from graphscale.modules.training_parts import evaluation

_TOLERANCE = 1e-4  # norm of the difference, relative to the norm of the reference's output
# The types and random weights of the runs, until one shows no difference. Functions that differ do
# so with any weights; equal ones may seem to differ where a network without normalisation enlarges
# the rounding of constants, which the graph holds in float32.
_RUNS = ((torch.float32, 0), (torch.float64, 0), (torch.float64, 1), (torch.float64, 2))


def why_outputs_differ(
    module: nn.Module,
    reference: nn.Module,
    example: Example,
    computed: ComputedWeights | None = None,
    fixed: Mapping[str, torch.Tensor] | None = None,
    mode: Callable[[nn.Module], nn.Module] = evaluation,
) -> str | None:
    """Why `module` does not compute what `reference` does, or None if it does.

    The reference runs in evaluation mode. The weights are drawn at random, because a branch whose
    last scale is still zero would hide an error in it. Both run in float32; where the outputs
    differ, or a module does not run, again in float64 and with other weights, because deep networks
    amplify rounding. The modules are not changed.

    Args:
        module: Called with the example's args and kwargs.
        reference: Called with the example's tensors one by one. A weight of the same name as one of
            `module` gets the same values; the reference's own values are not used.
        example: The arguments.
        computed: The weights of `reference` that `module` computes in its forward.
        fixed: The weights of `reference` that nothing trains and that `module` computes, or holds
            as buffers outside its state dict.
        mode: Puts `module` into the mode in which it was traced.

    Returns:
        The end of a sentence that begins with the module's name, or None.
    """
    names = set(module.state_dict()) & set(reference.state_dict())
    own = dict(module.state_dict())
    read = computed.read if computed else ()
    # In the module's order, not a set's, so that every process draws the same weights.
    shapes = {name: tensor for name, tensor in own.items() if name in names or name in read}
    every = {*reference.state_dict()}
    module, reference = (
        mode(copy_without_weights(module, set(shapes))),
        copy_without_weights(reference, every).eval(),
    )
    reason = None
    for dtype, seed in _RUNS:
        weights = _drawn(shapes, dtype, seed)
        fed = example.map(lambda each, dtype=dtype: _converted(each, dtype))
        try:
            with torch.no_grad():
                module, reference = module.to(dtype), reference.to(dtype)
                if computed:
                    with computed.capture(module) as captured:
                        found = functional_call(module, weights, fed.args, fed.kwargs)
                    given = {name: weights[name] for name in names} | captured
                else:
                    found = functional_call(module, weights, fed.args, fed.kwargs)
                    given = weights
                constant = {name: _converted(each, dtype) for name, each in (fixed or {}).items()}
                given = {**given, **{n: c for n, c in constant.items() if n not in names}}
                wanted = functional_call(reference, given, tuple(fed.tensors))
        except Exception as error:
            failure = " ".join(str(error).split())[:300]
            reason = f"its forward does not run at the pre-train size ({failure})"
            if dtype == torch.float64:
                break
        else:
            reason = _difference(_leaves(found), _leaves(wanted))
            if reason is None:
                return None
    return reason


def _converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _leaves(outputs: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _drawn(
    shapes: Mapping[str, torch.Tensor], dtype: torch.dtype, seed: int
) -> dict[str, torch.Tensor]:
    """Random weights that keep activations in range: He's for kernels, near one for vectors.

    A vector may have further dimensions of one place, as the gains of standardised kernels have.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, like in shapes.items():
        if not like.is_floating_point():
            drawn[name] = like
            continue
        # Uniform values, because they are drawn faster than normal ones.
        values = torch.rand(like.shape, generator=generator, dtype=dtype)
        if like.ndim > 1 and like.numel() > len(like):
            bound = (6 * len(like) / like.numel()) ** 0.5
            values = values.mul_(2 * bound).sub_(bound)
        else:
            values += 0.5
        drawn[name] = values.to(like.device)
    return drawn


def _difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> str | None:
    """The reason why lists of outputs are not equal, or None."""
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
