"""Resize one torch tensor between the networks, as its `WeightPlan` says (Eq. 5).

These two functions are what everything above growth stands on: growing a module, growing one in the
middle of training, growing an optimizer's momentum.
"""

from __future__ import annotations

import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphscale.convert.tensors import to_torch
from graphscale.core.plan import WeightPlan
from graphscale.core.resize_weights import grow_tensor, shrink_tensor
from graphscale.modules.module_state import memory_format


def grow_weight(
    tensor: torch.Tensor, weight_plan: WeightPlan, method: str = "bilinear"
) -> torch.Tensor:
    """The target's tensor of a pre-train tensor (Eq. 5 of arXiv 1610.03623).

    The map is linear, so that what follows a weight linearly (a gradient, SGD's momentum) may be
    grown by it too. Computed on the CPU in float32, float64 tensors in float64.

    Args:
        tensor: Of shape `weight_plan.pretrain_shape`; any floating-point dtype and device.
        weight_plan: How the weight is resized.
        method: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.

    Returns:
        A new tensor of shape `weight_plan.target_shape`, of the same dtype, device and memory
        format, without a gradient; a tensor on the meta device gives one there.
    """
    return _resized(tensor, grow_tensor, weight_plan, method)


def shrink_weight(
    tensor: torch.Tensor, weight_plan: WeightPlan, method: str = "bilinear"
) -> torch.Tensor:
    """The pre-train tensor whose growth is nearest to a target tensor; else as `grow_weight`."""
    return _resized(tensor, shrink_tensor, weight_plan, method)


def _resized(tensor: torch.Tensor, resize, weight_plan: WeightPlan, method: str) -> torch.Tensor:
    if tensor.is_meta:
        shape = weight_plan.target_shape if resize is grow_tensor else weight_plan.pretrain_shape
        return tensor.new_empty(shape)
    result = to_torch(resize(TorchTensor(tensor.detach().cpu()), weight_plan, method))
    form = memory_format(tensor)
    result = result.to(tensor.device)
    return result if form == torch.contiguous_format else result.to(memory_format=form)
