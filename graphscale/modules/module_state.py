"""The state of a torch module: tensors by name, memory formats, training modes, wrappers.

Shrinking and growing replace tensors by smaller or larger ones. `fill` does so in place: a
parameter stays the same object (shared where it was shared, frozen if it was) and keeps its dtype,
device and memory format. Other functions copy a module, or carry its modes over to another one.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping

import torch
from torch import nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch's own wrappers, such as torch.compile or DistributedDataParallel.

    Classes derived from such a wrapper count as well.
    """
    wrappers = ("torch._dynamo.", "torch.nn.parallel.", "torch.optim.")
    while any(base.__module__.startswith(wrappers) for base in type(module).__mro__):
        module = module._modules.get("_orig_mod", module._modules.get("module"))
    return module


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under every name that they have, also those not in the state dict."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def device_of(module: nn.Module) -> torch.device:
    """Device of the module's first parameter or buffer; the CPU for a module without any."""
    return next((tensor.device for tensor in tensors_of(module).values()), torch.device("cpu"))


def copy_module(module: nn.Module, memo: dict[int, torch.Tensor] | None = None) -> nn.Module:
    """A deep copy, also where layers keep computed weights as plain attributes.

    The hooks of torch.nn.utils.weight_norm keep such tensors, which copy.deepcopy refuses because
    they are no leaves of autograd's graph; the copy gets them detached, and its hook computes them
    again at the next call.

    Args:
        module: Is not changed.
        memo: As for copy.deepcopy: id of a tensor -> the tensor that the copy has in its place.
    """
    memo = dict(memo or {})
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def copy_without_weights(module: nn.Module, names: Container[str]) -> nn.Module:
    """A copy of the module in which the tensors named in `names` have shape (0,)."""
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
    """The memory format of every tensor in channels_last or channels_last_3d, by name."""
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
        tensors: By name, of any dtype and device; names that the module lacks are ignored.
        formats: Memory formats by name, where the module's own tensors have no elements.
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
    """Give `result` the training modes and frozen weights of `source`; returns `result`.

    Parts and parameters are matched by name.
    """
    if result.training != source.training:
        result.train(source.training)
    modes = {path: each.training for path, each in source.named_modules()}
    for path, each in result.named_modules():
        each.training = modes.get(path, each.training)
    adopt_frozen(result, source)
    return result


def adopt_frozen(result: nn.Module, source: nn.Module) -> None:
    """Give the parameters of `result` the requires_grad of those of the same names in `source`."""
    learned = dict(source.named_parameters(remove_duplicate=False))
    for name, parameter in result.named_parameters(remove_duplicate=False):
        if name in learned:
            parameter.requires_grad_(learned[name].requires_grad)
