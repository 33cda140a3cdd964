"""What a torch module holds beside its code: tensors by name, memory formats, modes, wrappers.

Shrinking and growing replace tensors by larger or smaller ones. These functions do so in place,
such that a parameter stays the same object (shared where it was shared, frozen if it was) and keeps
its dtype, device and memory format.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping

import torch
from torch import nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch's own wrappers, such as torch.compile or DistributedDataParallel."""
    while type(module).__module__.startswith(
        ("torch._dynamo.", "torch.nn.parallel.", "torch.optim.")
    ):
        module = module._modules.get("_orig_mod", module._modules.get("module"))
    return module


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under every name that they have, also those not in the state dict."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def device_of(module: nn.Module) -> torch.device:
    """Where the module's first parameter or buffer lies; the CPU for one without any."""
    return next((tensor.device for tensor in tensors_of(module).values()), torch.device("cpu"))


def copy_module(module: nn.Module, memo: dict[int, torch.Tensor] | None = None) -> nn.Module:
    """A deep copy, also where layers keep computed weights as plain attributes.

    torch.nn.utils.weight_norm's hooks do; such a tensor hangs on its graph of gradients, which
    copy.deepcopy refuses. The hook computes it again at the next call. `memo` is as for
    copy.deepcopy: tensors that the copy has in other tensors' place.
    """
    memo = dict(memo or {})
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def hollow(module: nn.Module, names: Container[str]) -> nn.Module:
    """A copy of the module whose tensors in `names` have no elements and take no memory."""
    memo = {}
    for name, tensor in tensors_of(module).items():
        if name in names:
            empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = empty
    return copy_module(module, memo)


def memory_format(tensor: torch.Tensor) -> torch.memory_format:
    """torch.channels_last (or _3d) where the tensor has its strides, else contiguous_format."""
    form = _CHANNELS_LAST.get(tensor.ndim)
    if form is None or tensor.is_contiguous():
        return torch.contiguous_format
    return form if tensor.is_contiguous(memory_format=form) else torch.contiguous_format


def memory_formats(module: nn.Module) -> dict[str, torch.memory_format]:
    """The memory format of every tensor that is not plainly contiguous."""
    found = {name: memory_format(tensor) for name, tensor in tensors_of(module).items()}
    return {name: form for name, form in found.items() if form != torch.contiguous_format}


def fill(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    formats: Mapping[str, torch.memory_format] | None = None,
) -> None:
    """Put `tensors` into the module's parameters and buffers, whatever shapes these had.

    Args:
        module: Changed in place; parameters stay the same objects and lose their gradients.
        tensors: By name; names that the module does not have are passed over.
        formats: Memory formats by name, where the module's own tensors are hollow.
    """
    own = tensors_of(module)
    for name, tensor in tensors.items():
        if name not in own:
            continue
        old = own[name]
        form = (formats or {}).get(name) or memory_format(old)
        new = tensor.detach().to(old)
        old.data = new.to(memory_format=form) if form == _CHANNELS_LAST.get(new.ndim) else new
        old.grad = None


def adopt_modes(result: nn.Module, source: nn.Module) -> nn.Module:
    """`result` with the training modes and frozen weights of `source`, matched by name."""
    if result.training != source.training:
        result.train(source.training)
    modes = {path: each.training for path, each in source.named_modules()}
    for path, each in result.named_modules():
        each.training = modes.get(path, each.training)
    adopt_frozen(result, source)
    return result


def adopt_frozen(result: nn.Module, source: nn.Module) -> None:
    """Let the parameters of `result` be trained where those of the same names in `source` are."""
    learned = dict(source.named_parameters(remove_duplicate=False))
    for name, parameter in result.named_parameters(remove_duplicate=False):
        if name in learned:
            parameter.requires_grad_(learned[name].requires_grad)
