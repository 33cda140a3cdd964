"""Grow a trained pre-train module back into the target (Eq. 5 of arXiv 1610.03623).

In: the module and its plan, or a module of the target. Out: a new module of the target's sizes. A
module keeps its class; an imported graph (`Network`) is grown as an ONNX model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from graphscale.convert.exporter import save
from graphscale.convert.importer import load
from graphscale.convert.network import Network
from graphscale.convert.tensors import to_torch
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import ModelLike
from graphscale.core.plan import Plan, WeightPlan
from graphscale.core.resampling import check_method
from graphscale.core.skeleton import restore
from graphscale.modules.check_image_size import forget_image_size
from graphscale.modules.computed_weights import refresh_computed_weights, resized_companions
from graphscale.modules.edit_layers import CannotEditError, edit_layers
from graphscale.modules.module_path import module_path
from graphscale.modules.module_state import (
    adopt_frozen,
    adopt_modes,
    copy_module,
    device_of,
    fill,
    memory_formats,
    tensors_of,
    unwrapped,
)
from graphscale.modules.plan_in_state_dict import attach_plan, detach_plan
from graphscale.modules.resize_weight import grow_weight, growing_weights
from graphscale.modules.weight_plans_from_shapes import weight_plans_from_shapes
from graphscale.rescaling.grow import grow_model


def grow_module(
    module: nn.Module,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | nn.Module | None = None,
    resize: str = "bilinear",
) -> nn.Module:
    """The target network with the grown weights of the pre-train network `module` (Eq. 5).

    Args:
        module: What `shrink_module` returned, after training, or any module of the pre-train
            network's sizes; also inside torch.compile or DistributedDataParallel. Not changed.
        plan: The plan, or its file, where the module does not have it as `graphscale_plan`.
        target: A module of the target network; a copy of it gets the weights.
        resize: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.

    Returns:
        A module of the target's class, state-dict keys and shapes, with the dtypes, devices and
        training modes of `module`.

    Raises:
        GraphScaleError: there is neither a plan nor a target, the module is not the plan's
            pre-train network, or a trained weight has no place in the target.
    """
    check_method(resize)
    module = unwrapped(module)
    plan = Plan.given(plan) or Plan.given(getattr(module, "graphscale_plan", None))
    if isinstance(module, Network):
        return _grow_network(module, plan, target, resize)
    name = type(module).__name__
    if target is not None and not isinstance(target, nn.Module):
        raise GraphScaleError(
            f"{name} grows into a torch module; give one as target, not a model file"
        )
    if plan is None and target is None:
        raise GraphScaleError(
            f"{name} carries no plan (graphscale_plan); give the one of the module that shrink "
            "returned, or a module of the target network as target"
        )
    given = tensors_of(module)
    weights = (
        plan.weights if plan is not None else weight_plans_from_shapes(given, unwrapped(target))
    )
    grown = grown_tensors(given, weights, resize, name)
    if target is not None:
        result = copy_module(unwrapped(target))
        _fill_target(result, {**given, **grown})
        return adopt_modes(result, module)
    result = copy_module(module)
    forget_image_size(result)
    detach_plan(result)
    outer = vars(result).pop("graphscale_outer_plans", None)
    if outer:  # the module was shrunk more than once, and can be grown once more
        attach_plan(result, outer[-1])
        if outer[:-1]:
            result.graphscale_outer_plans = outer[:-1]
    fill(result, grown)
    refresh_computed_weights(result)
    graph = restore(plan.target).graph
    if not any(module_path(node) for node in graph):
        raise GraphScaleError(
            "the plan was not made from a torch module; give a module of the target network as "
            "target"
        )
    try:
        edit_layers(result, graph)
    except CannotEditError as reason:
        raise GraphScaleError(
            f"{name} cannot take the target's sizes: {reason}; give a module of the target "
            "network as target"
        ) from None
    return result


def grown_tensors(
    given: Mapping[str, torch.Tensor], weights: Sequence[WeightPlan], resize: str, source: str
) -> dict[str, torch.Tensor]:
    """The grown tensors of the weights that the plan resizes, and of their companions.

    A shared weight is listed under each of its names.

    Args:
        given: All tensors of the pre-train network by name.
        weights: How they are resized.
        resize: As for `grow_module`.
        source: How error messages name the network.

    Raises:
        GraphScaleError: a weight is missing, has another shape, is complex, or holds NaN.
    """
    grown: dict[str, torch.Tensor] = {}
    for weight in growing_weights(given, weights, source):
        small = given[weight.name]
        large = grow_weight(small, weight, resize)
        shared = [name for name, other in given.items() if other is small]
        grown |= dict.fromkeys(shared, large)
        if not small.is_meta:
            grown |= resized_companions(weight.name, small, large, given)
    return grown


def _fill_target(result: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put `tensors`, which already have the target's shapes, into a copy of the target."""
    for name, own in result.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != own.shape:
            found = "none" if tensor is None else f"one of shape {list(tensor.shape)}"
            raise GraphScaleError(
                f"{type(result).__name__}: weight {name!r} has the shape {list(own.shape)}, the "
                f"checkpoint gives {found}; give the target that was shrunk"
            )
    fill(result, tensors)
    refresh_computed_weights(result)


def _grow_network(
    network: Network, plan: Plan | None, target: ModelLike | nn.Module | None, resize: str
) -> nn.Module:
    """Grow an imported network: into `target`, or into the module that it replaces, if any."""
    is_module = isinstance(target, nn.Module)
    grown, _, _ = grow_model(
        save(network), plan=plan, target=None if is_module else target, resize=resize
    )
    kept = vars(network).get("graphscale_target")
    if not is_module and kept is None:
        sizes = network.source.options["input_size"]
        result = load(grown, input_size=sizes).to(device_of(network))
        fill(result, tensors_of(result), memory_formats(network))
        return _trained_like(result, network)
    if is_module:
        result, formats = copy_module(unwrapped(target)), None
    else:
        result, formats = copy.deepcopy(kept.module), kept.formats
    tensors = {
        name: to_torch(value.const_value) for name, value in grown.graph.initializers.items()
    }
    own = tensors_of(result)
    learned = [name for name, each in network.named_parameters() if each.requires_grad]
    for name in [*learned, *(name for name, _ in network.named_buffers() if name in tensors)]:
        if name not in own or (is_module and list(own[name].shape) != list(tensors[name].shape)):
            raise GraphScaleError(
                f"{type(result).__name__}: the trained weight {name!r} of the imported network has "
                "no place in it, because its forward computes that weight from others; grow "
                "without target, which gives an imported network"
            )
    fill(result, tensors, formats)
    return _trained_like(result.to(device_of(network)), network)


def _trained_like(result: nn.Module, network: Network) -> nn.Module:
    """`result` in the training mode of `network`, with the same parameters frozen."""
    result.train(network.training)
    adopt_frozen(result, network)
    return result
