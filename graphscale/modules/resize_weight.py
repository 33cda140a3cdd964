"""Resize one torch tensor between the pre-train network and the target (Eq. 5).

In: a tensor and the `WeightPlan` that says how its dimensions are made up. Out: a new tensor of the
other network's shape. Growing and shrinking modules is done by these two functions;
`growing_weights` checks before it that a module's tensors can grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphscale.convert.tensors import to_torch
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import DERIVED_KINDS, WeightPlan
from graphscale.core.resize_weights import grow_tensor, shrink_tensor
from graphscale.modules.module_state import memory_format


def grow_weight(
    tensor: torch.Tensor,
    weight_plan: WeightPlan,
    method: str = "bilinear",
    squared: bool = False,
) -> torch.Tensor:
    """Grow a tensor of the pre-train network to the target's shape (Eq. 5 of arXiv 1610.03623).

    The map is linear, so it also grows quantities that depend linearly on the weight, such as a
    gradient or SGD's momentum. It is computed on the CPU, in float32 or, for float64 tensors, in
    float64.

    Args:
        tensor: Of shape `weight_plan.pretrain_shape`; any floating-point dtype and device.
        weight_plan: How the weight is resized.
        method: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.
        squared: Whether to square every entry of the map, as for a variance of each tap.

    Returns:
        A new tensor of shape `weight_plan.target_shape`, of the same dtype, device and memory
        format, without a gradient. The result of a tensor on the meta device is on it, too.

    Raises:
        GraphScaleError: the method is unknown.
    """
    if tensor.is_meta:
        return tensor.new_empty(weight_plan.target_shape)
    array = TorchTensor(tensor.detach().cpu())
    return _like(tensor, grow_tensor(array, weight_plan, method, squared=squared))


def shrink_weight(
    tensor: torch.Tensor, weight_plan: WeightPlan, method: str = "bilinear"
) -> torch.Tensor:
    """Shrink a tensor of the target: the pre-train tensor whose growth is nearest to it.

    It undoes `grow_weight` and takes the same arguments: `tensor` has `weight_plan.target_shape`,
    the result `weight_plan.pretrain_shape`.
    """
    if tensor.is_meta:
        return tensor.new_empty(weight_plan.pretrain_shape)
    return _like(tensor, shrink_tensor(TorchTensor(tensor.detach().cpu()), weight_plan, method))


def growing_weights(
    given: Mapping[str, torch.Tensor], weights: Iterable[WeightPlan], source: str
) -> list[WeightPlan]:
    """Those of `weights` whose tensors a pre-train network holds, each of them checked.

    Tables that follow from the sizes alone may be missing, as `forward` may compute them, or be the
    target's, where a state dict without them was put into a copy of the target.

    Args:
        given: All tensors of the pre-train network by name.
        weights: How the plan resizes them.
        source: How error messages name the network.

    Raises:
        GraphScaleError: a weight is missing, has another shape, is complex, or holds NaN.
    """
    found = [
        each
        for each in weights
        if each.kind not in DERIVED_KINDS
        or (each.name in given and list(given[each.name].shape) != each.target_shape)
    ]
    for weight in found:
        _check(given.get(weight.name), weight, source)
    return found


def _check(tensor: torch.Tensor | None, weight: WeightPlan, source: str) -> None:
    if tensor is None or list(tensor.shape) != weight.pretrain_shape:
        found = "has none" if tensor is None else f"has the shape {list(tensor.shape)}"
        raise GraphScaleError(
            f"{source}: the plan wants a weight {weight.name!r} of shape "
            f"{weight.pretrain_shape}, the module {found}; give the plan that it was shrunk by"
        )
    if tensor.is_complex():
        raise GraphScaleError(
            f"{source}: weight {weight.name!r} is complex; growth resizes real weights alone"
        )
    if not tensor.is_meta and tensor.isnan().any():
        raise GraphScaleError(
            f"{source}: weight {weight.name!r} holds NaN; go back to a checkpoint "
            "from before the training diverged"
        )


def _like(tensor: torch.Tensor, resized: ir.TensorProtocol) -> torch.Tensor:
    """`resized` on the device and in the memory format of `tensor`."""
    form = memory_format(tensor)
    result = to_torch(resized).to(tensor.device)
    return result if form == torch.contiguous_format else result.to(memory_format=form)
