"""Resize one torch tensor between the pre-train network and the target (Eq. 5).

In: a tensor and the `WeightPlan` that says how its dimensions are made up. Out: a new tensor of the
other network's shape. Growing and shrinking modules is done by these two functions.
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
    """Grow a tensor of the pre-train network to the target's shape (Eq. 5 of arXiv 1610.03623).

    The map is linear, so it also grows quantities that depend linearly on the weight, such as a
    gradient or SGD's momentum. It is computed on the CPU, in float32 or, for float64 tensors, in
    float64.

    Args:
        tensor: Of shape `weight_plan.pretrain_shape`; any floating-point dtype and device.
        weight_plan: How the weight is resized.
        method: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.

    Returns:
        A new tensor of shape `weight_plan.target_shape`, of the same dtype, device and memory
        format, without a gradient. The result of a tensor on the meta device is on it, too.

    Raises:
        GraphScaleError: the method is unknown.
    """
    return _resized(tensor, grow_tensor, weight_plan, method)


def shrink_weight(
    tensor: torch.Tensor, weight_plan: WeightPlan, method: str = "bilinear"
) -> torch.Tensor:
    """Shrink a tensor of the target: the pre-train tensor whose growth is nearest to it.

    It undoes `grow_weight` and takes the same arguments: `tensor` has `weight_plan.target_shape`,
    the result `weight_plan.pretrain_shape`.
    """
    return _resized(tensor, shrink_tensor, weight_plan, method)


def _resized(tensor: torch.Tensor, resize, weight_plan: WeightPlan, method: str) -> torch.Tensor:
    if tensor.is_meta:
        shape = weight_plan.target_shape if resize is grow_tensor else weight_plan.pretrain_shape
        return tensor.new_empty(shape)
    result = to_torch(resize(TorchTensor(tensor.detach().cpu()), weight_plan, method))
    form = memory_format(tensor)
    result = result.to(tensor.device)
    return result if form == torch.contiguous_format else result.to(memory_format=form)
