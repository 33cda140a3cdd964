"""How torch differentiates, transforms and casts the library's operators.

`register_derivatives` takes an operator's gradient (a function that calls the library's gradient
operator) and its decomposition (the same function written in torch's own operators), and makes the
operator work in

- reverse mode (backward, torch.func.grad, vjp, jacrev), by the gradient;
- forward mode (torch.func.jvp, jacfwd, linearize, hessian, forward_ad), by the decomposition, whose
  operators know their tangents;
- torch.func.vmap, by the decomposition, whose operators know their batches.

`register_autocast` chooses the type in which an operator computes under torch.autocast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from graphscale.core.errors import GraphScaleError
from graphscale.layers.operator import DOMAIN, Operator

# Registrations last as long as this object.
_LIBRARY = torch.library.Library(DOMAIN, "FRAGMENT")
_AUTOCAST_KEYS = {
    "cpu": torch._C.DispatchKey.AutocastCPU,
    "cuda": torch._C.DispatchKey.AutocastCUDA,
}


def register_derivatives(
    operator: Operator,
    decomposition: Callable | None,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
    decompose_second: bool = False,
) -> None:
    """Register the derivatives of ``operator`` and its rule for vmap with torch.

    Args:
        decomposition: Takes all arguments of the operator and computes its outputs by torch's
            operators. With None, forward mode and vmap raise GraphScaleError.
        backward, setup_context: As ``torch.library.register_autograd`` takes them. With None, the
            backward pass computes the decomposition once more and differentiates it; with no
            decomposition either, the operator has no gradient.
        decompose_second: Differentiate the decomposition in reverse mode, too, under torch.func:
            for a ``backward`` whose shapes depend on data, which vmap cannot follow.
    """
    if backward is None and decomposition is not None:
        backward, setup_context = _gradient_of(decomposition)
        decompose_second = True
    torch_op, name = operator.torch_op, operator.name
    defaults = operator.defaults

    def below(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return torch_op(*args)

    def decomposed(*args):
        if decomposition is None:
            raise GraphScaleError(
                f"{name} has no derivative in forward mode and no rule for torch.vmap; call it "
                "outside of torch.func's transforms"
            )
        return decomposition(*args)

    class Function(_SingleLevelFunction):
        @staticmethod
        def forward(ctx, *args):
            if torch._C._are_functorch_transforms_active():
                # torch turns both off while forward runs, but the transforms around this one
                # differentiate what it computes.
                with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                    result = below(*args)
            else:
                result = below(*args)
            setup_context(ctx, args, result)
            return result

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    Function.__name__ = Function.__qualname__ = f"{name}Function"

    def differentiate(*args):
        args += defaults[len(args) :]  # torch leaves out arguments that equal their defaults
        if _have_tangents(args):
            return decomposed(*args)
        wanted = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if not wanted or backward is None:
            return below(*args)
        if not torch._C._are_functorch_transforms_active():
            return Function.apply(*args)
        if decompose_second:
            return decomposition(*args)
        with enable_single_level_autograd_function():
            return Function.apply(*args)

    _LIBRARY.impl(torch_op, differentiate, "Autograd")

    def batch(*args):
        return decomposed(*args, *defaults[len(args) :])

    _LIBRARY.impl(torch_op, batch, "FuncTorchBatched")


def _gradient_of(decomposition: Callable) -> tuple[Callable, Callable]:
    """``backward`` and ``setup_context`` that differentiate the decomposition, computed anew."""

    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*(arg for arg in inputs if isinstance(arg, Tensor)))
        ctx.arguments = [None if isinstance(arg, Tensor) else arg for arg in inputs]
        ctx.places = [i for i, arg in enumerate(inputs) if isinstance(arg, Tensor)]
        outputs = [output] if isinstance(output, Tensor) else output
        ctx.mark_non_differentiable(*(y for y in outputs if not y.is_floating_point()))

    def backward(ctx, *grads):
        arguments = list(ctx.arguments)
        for place, tensor in zip(ctx.places, ctx.saved_tensors):
            arguments[place] = tensor
        with torch.enable_grad():
            outputs = decomposition(*arguments)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        pairs = [(y, grad) for y, grad in zip(outputs, grads) if y.requires_grad]
        inputs = [i for i in ctx.places if ctx.needs_input_grad[i]]
        found = torch.autograd.grad(
            [y for y, _ in pairs],
            [arguments[i] for i in inputs],
            [grad for _, grad in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
        by_place = dict(zip(inputs, found))
        return tuple(by_place.get(i) for i in range(len(arguments)))

    return backward, setup_context


def _have_tangents(args: tuple) -> bool:
    """Whether forward mode runs and has a tangent for one of ``args``."""
    if forward_ad._current_level < 0:
        return False
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def register_autocast(operator: Operator, choose_type: Callable[[str, list], torch.dtype]) -> None:
    """Under torch.autocast, cast all floating-point inputs of ``operator`` to one type.

    ``choose_type`` takes the kind of device and the inputs' types: `lower_type`, `full_type` or
    `widest_type`. As for torch's own operators, float64 stays float64.
    """
    for device, key in _AUTOCAST_KEYS.items():
        kernel = functools.partial(_cast_and_call, operator.torch_op, choose_type, device, key)
        _LIBRARY.impl(operator.torch_op, kernel, key.name)


def lower_type(device: str, types: list[torch.dtype]) -> torch.dtype:
    """The type of autocast, in which torch's convolutions compute under it."""
    return torch.get_autocast_dtype(device)


def full_type(device: str, types: list[torch.dtype]) -> torch.dtype:
    """float32, the type in which torch's losses compute under autocast."""
    return torch.float32


def widest_type(device: str, types: list[torch.dtype]) -> torch.dtype:
    """The widest of the inputs' types: gradients compute in the types of the forward pass."""
    return functools.reduce(torch.promote_types, types)


def is_cast(arg: object) -> bool:
    """Whether autocast changes the type of an argument, as of torch's own operators."""
    return isinstance(arg, Tensor) and arg.is_floating_point() and arg.dtype != torch.float64


def _cast_and_call(
    torch_op: Callable, choose_type: Callable, device: str, key: torch._C.DispatchKey, *args
):
    """Cast ``args`` and call the operator below autocast, which would come here again."""
    types = [arg.dtype for arg in args if is_cast(arg)]
    if types:
        chosen = choose_type(device, types)
        args = tuple(arg.to(chosen) if is_cast(arg) else arg for arg in args)
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
        return torch_op(*args)
