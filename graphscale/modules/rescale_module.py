"""Shrink and grow a torch module.

The module is traced to an ONNX graph, which is planned and shrunk like any other. Then a copy of
the module takes the graph's numbers: same class, same state-dict keys. Where it cannot (numbers
written into its forward), the graph itself as `load` imports it takes its place.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from graphscale.convert.exporter import save
from graphscale.convert.importer import load
from graphscale.convert.network import Network
from graphscale.convert.tensors import to_torch
from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable
from graphscale.core.model_files import ModelLike
from graphscale.core.plan import Plan, WeightPlan
from graphscale.core.resampling import interpolation_matrix
from graphscale.core.resize_weights import grow_tensor
from graphscale.core.skeleton import restore
from graphscale.modules.compare_modules import difference, hollow
from graphscale.modules.edit_layers import CannotEditError, edit_layers
from graphscale.modules.plan_in_state_dict import attach_plan, detach_plan
from graphscale.modules.resized_weights import resized_weights
from graphscale.modules.trace_module import Example, module_path, trace_module
from graphscale.rescaling.grow import grow_model
from graphscale.rescaling.input_size import Size
from graphscale.rescaling.shrink import shrink_model


class _Target:
    """Holds the target module for the network that stands in its place; no part of the network."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


def shrink_module(
    module: nn.Module,
    example_input: Any,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """The pre-train network of `module`, which is left as it is; options as for `shrink`.

    Args:
        module: The target; also inside torch.compile or DistributedDataParallel.
        example_input: What it is called with at the target's size: a tensor, a tuple of arguments
            or a dict of keyword arguments.

    Returns:
        A module of the same class with the same state-dict keys, whose attribute `graphscale_plan`
        holds the plan. Where the class cannot take the plan's numbers, a warning says why and the
        module is what `load` makes of the shrunk graph.

    Raises:
        GraphScaleError: torch cannot export the module, or the graph cannot be rescaled.
    """
    module = unwrapped(module)
    options = {"input_size": input_size, "kernels": kernels, "keep": keep}
    options |= {"init": init or "auto", "seed": seed}
    if isinstance(module, Network):
        model, plan = shrink_model(save(module), **options)
        network = _adopt(load(model).to(_device(module)), module)
        attach_plan(network, plan)
        return network
    example = Example(example_input)
    edited = copy.deepcopy(module)
    model = trace_module(edited.eval(), example)
    _adopt(edited, module)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    model, plan = shrink_model(model, **options)
    changed = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not before.get(name):
            # Computed once, before the edited module's weights, which it may read, are replaced.
            value.const_value = ir.Tensor(value.const_value.numpy(), value.dtype, name=name)
            changed[name] = value.const_value
    network = load(model)
    network.to(_device(module))
    try:
        _fill(edited, changed, {weight.name for weight in plan.weights})
        edit_layers(edited, model.graph)
        reason = difference(edited, network, _pretrain_example(example, model))
    except CannotEditError as error:
        reason = str(error)
    if reason is None:
        attach_plan(edited, plan)
        return edited
    warnings.warn(
        f"{type(module).__name__} cannot take the plan's numbers: {reason}. In its place stands "
        "the network that graphscale.load makes of the shrunk graph",
        stacklevel=3,
    )
    return _fallback(network, module, plan, set(model.graph.initializers))


def grow_module(
    module: nn.Module,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | nn.Module | None = None,
    resize: str = "bilinear",
) -> nn.Module:
    """The target network with the weights of the trained pre-train network `module` (Eq. 5).

    Args:
        module: What `shrink_module` returned, after training; also inside torch.compile or
            DistributedDataParallel. Or any module of the pre-train network's sizes with a plan.
        plan: The plan, or its file, where the module does not have it as `graphscale_plan`.
        target: A module of the target network; a copy of it is filled.
        resize: As for `grow`.

    Returns:
        A module of the target's class, state-dict keys and shapes, in the modes of `module`.

    Raises:
        GraphScaleError: there is no plan, or the module is not the plan's pre-train network.
    """
    interpolation_matrix(1, 1, resize)  # an unknown method is an error before any work
    module = unwrapped(module)
    if isinstance(plan, str | os.PathLike):
        plan = Plan.from_file(plan)
    plan = plan or getattr(module, "graphscale_plan", None)
    if isinstance(module, Network):
        return _grow_network(module, plan, target, resize)
    if target is not None and not isinstance(target, nn.Module):
        raise GraphScaleError(
            f"{type(module).__name__} grows into a torch module; give one as target, not a "
            "model file"
        )
    if plan is None and target is None:
        raise GraphScaleError(
            f"{type(module).__name__} carries no plan (graphscale_plan); give the one of the "
            "module that shrink returned, or a module of the target network as target"
        )
    weights = plan.weights if plan is not None else resized_weights(module, unwrapped(target))
    given = _tensors(module)
    grown = {}
    for weight in weights:
        tensor = _grown(module, given, weight, resize)
        shared = given[weight.name]
        grown |= {name: tensor for name, other in given.items() if other is shared}
    if target is not None:
        result = copy.deepcopy(unwrapped(target))
        rest = {name: TorchTensor(each) for name, each in given.items() if name not in grown}
        _fill_target(result, rest | grown)
        return _adopt(result, module)
    result = copy.deepcopy(module)
    detach_plan(result)
    _fill(result, grown, set(grown))
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
            f"{type(module).__name__} cannot take the target's numbers: {reason}; give a module of "
            "the target network as target"
        ) from None
    return result


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch's own wrappers, such as torch.compile or DistributedDataParallel."""
    while type(module).__module__.startswith(
        ("torch._dynamo.", "torch.nn.parallel.", "torch.optim.")
    ):
        module = module._modules.get("_orig_mod", module._modules.get("module"))
    return module


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under every name that they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in _tensors(module).values()), torch.device("cpu"))


def _fill(module: nn.Module, tensors: Mapping[str, ir.TensorProtocol], needed: set[str]) -> None:
    """Put `tensors` into the module's parameters and buffers, whatever shapes these had.

    Raises:
        CannotEditError: the module has no weight of a name in `needed`.
    """
    own = _tensors(module)
    for name, tensor in tensors.items():
        if name in own:
            # The parameter stays the same object: shared where it is shared, frozen if it is.
            own[name].data = to_torch(tensor).to(own[name])
            own[name].grad = None
        elif name in needed:
            raise CannotEditError(f"its forward computes the weight {name!r} from others")


def _adopt(result: nn.Module, source: nn.Module) -> nn.Module:
    """`result` with the modes and frozen weights of `source`, matched by name."""
    if result.training != source.training:
        result.train(source.training)
    if not isinstance(source, Network):  # whose parts are not the layers of the module
        modes = {path: each.training for path, each in source.named_modules()}
        for path, each in result.named_modules():
            each.training = modes.get(path, each.training)
    learned = dict(source.named_parameters(remove_duplicate=False))
    for name, parameter in result.named_parameters(remove_duplicate=False):
        if name in learned:
            parameter.requires_grad_(learned[name].requires_grad)
    return result


def _pretrain_example(example: Example, model: ir.Model) -> Example:
    """Random inputs of the pre-train network's shapes."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if not any(isinstance(value.shape[0], int) for value in inputs if len(value.shape)):
        example = example.batched()
    shapes = iter([value.shape for value in inputs])
    generator = torch.Generator().manual_seed(0)

    def random(tensor: torch.Tensor) -> torch.Tensor:
        sizes = [b if isinstance(b, int) else a for a, b in zip(tensor.shape, next(shapes))]
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(sizes, generator=generator).to(tensor)

    return example.map(random)


def _fallback(network: Network, module: nn.Module, plan: Plan, names: set[str]) -> Network:
    """The imported network in the place of `module`, which it remembers for growing."""
    own = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in network.named_parameters():
        # What is neither a weight of the module nor computed from one is a constant there.
        trained = own[name].requires_grad if name in own else name in plan.folded
        parameter.requires_grad_(trained)
    network.train(module.training)
    attach_plan(network, plan)
    if all(name in own for name, each in network.named_parameters() if each.requires_grad):
        network.graphscale_target = _Target(hollow(module, names))
    return network


def _grown(
    module: nn.Module, given: Mapping[str, torch.Tensor], weight: WeightPlan, resize: str
) -> ir.TensorProtocol:
    """The target's tensor of one weight that is resized."""
    tensor = given.get(weight.name)
    if tensor is None or list(tensor.shape) != weight.pretrain_shape:
        found = "has none" if tensor is None else f"has the shape {list(tensor.shape)}"
        raise GraphScaleError(
            f"{type(module).__name__}: the plan wants a weight {weight.name!r} of shape "
            f"{weight.pretrain_shape}, the module {found}; give the plan that it was shrunk by"
        )
    if tensor.isnan().any():
        raise GraphScaleError(
            f"{type(module).__name__}: weight {weight.name!r} holds NaN; go back to a checkpoint "
            "from before the training diverged"
        )
    return grow_tensor(TorchTensor(tensor.detach().cpu()), weight, resize)


def _fill_target(result: nn.Module, tensors: Mapping[str, ir.TensorProtocol]) -> None:
    """Put `tensors`, which already have the target's shapes, into a copy of the target."""
    for name, own in result.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None or list(tensor.shape.numpy()) != list(own.shape):
            found = "none" if tensor is None else f"one of shape {list(tensor.shape.numpy())}"
            raise GraphScaleError(
                f"{type(result).__name__}: weight {name!r} has the shape {list(own.shape)}, the "
                f"checkpoint gives {found}; give the target that was shrunk"
            )
    _fill(result, tensors, set())


def _grow_network(
    network: Network, plan: Plan | None, target: ModelLike | nn.Module | None, resize: str
) -> nn.Module:
    """Growth of an imported network: into the module that it stands for, if there is one."""
    is_module = isinstance(target, nn.Module)
    grown, _, _ = grow_model(
        save(network), plan=plan, target=None if is_module else target, resize=resize
    )
    kept = vars(network).get("graphscale_target")
    base = unwrapped(target) if is_module else kept.module if kept is not None else None
    if base is None:
        return _adopt(load(grown).to(_device(network)), network)
    result = copy.deepcopy(base)
    _fill(result, {n: v.const_value for n, v in grown.graph.initializers.items()}, set())
    return _adopt(result.to(_device(network)), network)
