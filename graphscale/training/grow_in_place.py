"""`grow_`: turn a pre-train network into its target within the same module object.

In: the module, its optimizers and weight averages. Out: the same objects, with the target's sizes.
Everything is computed before anything is assigned, so that an error leaves all of them unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn
from torch.optim import Optimizer

from graphscale.convert.exporter import save
from graphscale.convert.importer import load
from graphscale.convert.network import Network
from graphscale.core.arguments import instance, one_of
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.core.resampling import check_method
from graphscale.core.skeleton import restore
from graphscale.distributed import PipelineParallel
from graphscale.modules.check_image_size import copy_image_size, forget_image_size
from graphscale.modules.computed_weights import refresh_computed_weights, resized_companions
from graphscale.modules.edit_layers import CannotEditError, edit_layers
from graphscale.modules.module_path import module_path
from graphscale.modules.module_state import tensors_of, unwrapped
from graphscale.modules.plan_in_state_dict import ATTRIBUTE, attach_plan, detach_plan
from graphscale.modules.resize_weight import growing_weights
from graphscale.rescaling.grow import grow_model
from graphscale.training.distributed_wrappers import parallel_wrappers, renew
from graphscale.training.growth_stages import GrowthStage, copy_layer_sizes
from graphscale.training.optimizer_state import (
    NewState,
    grown_states,
    like,
    plain_optimizer,
    put_states,
)
from graphscale.training.weight_maps import (
    WeightMap,
    growth_maps,
    kernels_before_batch_norm,
    norm_scale,
)
from graphscale.training.whole_parameters import whole_parameters

OPTIMIZER_STATES = ("resize", "reset")
AMPLITUDES = ("response", "norm")


def grow_(
    module: nn.Module,
    *,
    plan: Plan | str | os.PathLike | None = None,
    to: GrowthStage | None = None,
    optimizers: Optimizer | Iterable[Optimizer] = (),
    averages: nn.Module | Iterable[nn.Module] = (),
    optimizer_state: str = "resize",
    resize: str = "bilinear",
    amplitude: str = "response",
) -> nn.Module:
    """Grow a trained pre-train network in place: `graphscale.grow` for a running training loop.

    The module stays the same object with the same `Parameter` objects, so optimizers, learning
    rate schedulers, GradScaler, hooks, loggers and torch.compile wrappers continue to work. A
    compiled module compiles once more; compile it with `dynamic=False`, because otherwise torch
    makes the image size symbolic and the code slower. Memory formats, devices, frozen and shared
    weights stay as they are. The weights equal those of `graphscale.grow` bit for bit.

    The gradients of all parameters are dropped: call `grow_` between an optimizer step and the next
    backward pass. Every DistributedDataParallel around the module gets a new reducer, so call it on
    every rank. A module that is sharded by `fully_shard` or by tensor parallelism is gathered on
    every rank, grown and sharded again, and gets new Parameter objects, also in its optimizers.
    BatchNorm statistics are still those of the pre-train network; if you evaluate the
    grown module before training it further, estimate them again by
    `torch.optim.swa_utils.update_bn(loader, module)`.

    Args:
        module: What `shrink` returned, before or during training; also inside wrappers, or as the
            only shrunk part of a larger module.
        plan: The plan, or its file, if the module does not have it as `graphscale_plan`.
        to: A later stage of `GrowthStages`; by default the target.
        optimizers: The optimizers that train the module. SGD's momentum and Adam's first moments
            grow by the weights' linear map, second moments (Adam, RMSprop, Adagrad, Adadelta) by
            the squared one. The state of a parameter is reset, with a warning, if it holds a tensor
            for which there is no rule.
        averages: Copies of the module that average its weights, such as
            torch.optim.swa_utils.AveragedModel or timm's ModelEmaV3; they grow likewise.
        optimizer_state: 'resize', or 'reset' to let resized weights start without state.
        resize: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.
        amplitude: 'response' keeps the sum of each kernel's taps, roughly (Eq. 5); 'norm'
            keeps each filter's norm where a BatchNorm follows, and scales its running statistics
            with it: the same function, and the effective learning rate stays what it was.

    Returns:
        `module`.

    Raises:
        GraphScaleError: there is no plan, the module or an average is not the plan's pre-train
            network, or an optimizer belongs to another module. Nothing is changed then.

    Example:
        >>> import torch, graphscale
        >>> target = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 7, padding=3), torch.nn.ReLU())
        >>> module = graphscale.shrink(target, torch.randn(2, 3, 32, 32))
        >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        >>> # ... train on images of 23×23 pixels, then:
        >>> _ = graphscale.grow_(module, optimizers=optimizer)
        >>> module[0].kernel_size
        (7, 7)
    """
    instance("module", module, nn.Module, "the torch module that shrink returned")
    one_of("optimizer_state", optimizer_state, OPTIMIZER_STATES)
    one_of("amplitude", amplitude, AMPLITUDES)
    if to is not None:
        instance("to", to, GrowthStage, "a stage of GrowthStages, such as stages.later[0]")
    check_method(resize)
    plan = Plan.given(plan)
    inner = unwrapped(module) if plan is not None else pretrain_part(module)
    plan = plan or inner.graphscale_plan
    chosen = [plain_optimizer(each) for each in optimizers_of(optimizers)]
    copies = copies_of(inner, averages)
    wrappers = parallel_wrappers(inner, module)
    maps = growth_maps(plan, resize, None if to is None else to.plan)
    with whole_parameters((inner, *copies), chosen):
        growths = [_growth(each, plan, to, maps, resize, amplitude) for each in (inner, *copies)]
        states = grown_states(chosen, growths[0].maps, inner.parameters(), optimizer_state)
        _commit(growths, states)
    for wrapper in wrappers:
        renew(wrapper)
    return module


def optimizers_of(given: object) -> list:
    """One optimizer or several, as a list; wrappers of torch's optimizers count as optimizers.

    Raises:
        GraphScaleError: one of them is no optimizer, or one whose state cannot grow.
    """
    optimizers = list(_each(given, Optimizer))
    for each in optimizers:
        plain_optimizer(each)
    return optimizers


def copies_of(module: nn.Module, averages: nn.Module | Iterable[nn.Module]) -> list[nn.Module]:
    """The copy of `module` in each of `averages`.

    Raises:
        GraphScaleError: an average holds no copy of the module, or several.
    """
    return [_copy_of(module, each) for each in _each(averages, nn.Module)]


@dataclass
class _Growth:
    """Everything that will be assigned to one module.

    Exactly one of `graph`, `stage` and `program` is set.

    Attributes:
        module: The module.
        maps: The parameters that change, with the maps by which their optimizer state grows.
        tensors: Parameter or buffer -> its new content.
        plan: The module's new plan; None if it becomes the target.
        graph: The traced target, from which the layers get their sizes.
        stage: The later stage, from whose template the layers get their sizes.
        program: For an imported graph, the imported target, whose program the module gets.
    """

    module: nn.Module
    maps: dict[nn.Parameter, WeightMap]
    tensors: dict[torch.Tensor, torch.Tensor]
    plan: Plan | None
    graph: ir.Graph | None = None
    stage: GrowthStage | None = None
    program: Network | None = None


def _each(given: object, kind: type) -> Sequence:
    """One object or several, as a list."""
    try:
        return [given] if isinstance(given, kind) else list(given)
    except TypeError:  # it is no collection
        return [given]


def pretrain_part(module: nn.Module) -> nn.Module:
    """The one part of `module` that carries a plan, usually the module inside its wrappers.

    Raises:
        GraphScaleError: no part carries a plan, or several do, or the layers are split by stage.
    """
    instance("module", module, nn.Module, "the torch module that shrink returned")
    if any(isinstance(part, PipelineParallel) for part in module.modules()):
        raise GraphScaleError(
            "PipelineParallel: a network whose layers are split by stage cannot grow in place; "
            "load get_full_state_dict of it into the whole network, grow that, and split it again"
        )
    found = [part for part in module.modules() if ATTRIBUTE in vars(part)]
    name = type(unwrapped(module)).__name__
    if not found:
        raise GraphScaleError(
            f"{name} carries no plan ({ATTRIBUTE}), or is grown already; give the plan of the "
            "module that shrink returned"
        )
    if len(found) > 1:
        raise GraphScaleError(
            f"{name} holds {len(found)} networks that carry a plan; grow each of them by itself"
        )
    plan = vars(found[0])[ATTRIBUTE]
    instance(f"{name}.{ATTRIBUTE}", plan, Plan, "the module that shrink returned, with its plan")
    return found[0]


def _copy_of(module: nn.Module, average: object) -> nn.Module:
    """The copy of `module` inside `average`, a copy or a wrapper of one."""
    root = average if isinstance(average, nn.Module) else getattr(average, "ema", None)
    parts = [] if root is None else [p for p in root.modules() if type(p) is type(module)]
    parts = [part for part in parts if ATTRIBUTE in vars(part)] or parts[:1]
    if len(parts) != 1:
        raise GraphScaleError(
            f"averages: {type(average).__name__} holds {'several' if parts else 'no'} "
            f"{type(module).__name__}; give a copy of the module, or a wrapper of one such as "
            "AveragedModel"
        )
    return parts[0]


def _growth(
    module: nn.Module,
    plan: Plan,
    to: GrowthStage | None,
    maps: dict[str, WeightMap],
    resize: str,
    amplitude: str,
) -> _Growth:
    """Compute what growing will assign to one module; the module is not changed."""
    own = tensors_of(module)
    if isinstance(module, Network):  # its new program holds the other resized tensors as constants
        maps = {name: each for name, each in maps.items() if name in own}
    weights = [each.weight for each in maps.values()]
    held = growing_weights(own, weights, type(module).__name__)
    maps = {weight.name: maps[weight.name] for weight in held}
    if amplitude == "norm":
        maps, buffers = _norm_kept(plan, maps, own)
    else:
        buffers = {}
    channels_last = any(
        p.ndim == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last)
        for p in module.parameters()
    )
    tensors = {own[name]: each(own[name]) for name, each in maps.items()}
    tensors = {old: like(new, old, channels_last) for old, new in tensors.items()}
    for name in maps:  # companions of computed kernels, such as weight_norm's magnitudes
        if own[name].is_meta:
            continue
        companions = resized_companions(name, own[name], tensors[own[name]], own)
        buffers |= {own[other]: value for other, value in companions.items()}
    learned = {own[n]: each for n, each in maps.items() if isinstance(own[n], nn.Parameter)}
    growth = _Growth(module, learned, tensors | buffers, None if to is None else to.plan)
    if isinstance(module, Network):
        growth.program = _target_network(module, plan, to, resize, maps)
    elif to is not None:
        growth.stage = to
    else:
        growth.graph = restore(plan.target).graph
        if not any(module_path(node) for node in growth.graph):
            raise GraphScaleError(
                "the plan was not made from a torch module; shrink the module itself, or use "
                "graphscale.grow with a module of the target network as target"
            )
    return growth


def _norm_kept(
    plan: Plan, maps: dict[str, WeightMap], own: dict[str, torch.Tensor]
) -> tuple[dict[str, WeightMap], dict[torch.Tensor, torch.Tensor]]:
    """Maps that keep the norms of filters before a BatchNorm, and its scaled statistics."""
    maps, buffers = dict(maps), {}
    kernels = kernels_before_batch_norm(plan)
    for name in maps.keys() & kernels.keys():
        scale = norm_scale(own[name], maps[name])
        maps[name] = maps[name].scaled(scale)
        for bias in kernels[name].biases & own.keys():
            shape = tuple(own[bias].shape)
            maps[bias] = WeightMap(bias, shape, shape, scale=scale)
        for names, factor in (
            (kernels[name].means, scale),
            (kernels[name].variances, scale * scale),
        ):
            for statistic in names & own.keys():
                old = own[statistic]
                buffers[old] = (old.double() * factor.to(old.device)).to(old.dtype)
    return maps, buffers


def _target_network(
    network: Network, plan: Plan, to: GrowthStage | None, resize: str, maps: dict[str, WeightMap]
) -> Network:
    """The imported target, whose program an imported pre-train network gets."""
    if to is not None:
        raise GraphScaleError(
            "a network that is an imported graph grows to the target only, not to a stage; leave "
            "'to' out"
        )
    grown, _, _ = grow_model(save(network), plan=plan, resize=resize)
    program = load(grown, **network.source.options)
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}
    shapes |= {name: each.after for name, each in maps.items() if name in shapes}
    if {name: tuple(each.shape) for name, each in program.named_parameters()} != shapes:
        raise GraphScaleError(
            f"{network.source.name}: its target has other weights, so it cannot grow in place; use "
            "graphscale.grow"
        )
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    return program.to(device)


def _commit(growths: Sequence[_Growth], states: Sequence[NewState]) -> None:
    """Assign everything, or nothing."""
    with _restored_on_error([growth.module for growth in growths]):
        for growth in growths:
            for old, new in growth.tensors.items():
                old.data = new
            if growth.graph is not None:
                try:
                    edit_layers(growth.module, growth.graph)
                except CannotEditError as reason:
                    raise GraphScaleError(
                        f"{type(growth.module).__name__} cannot take the target's sizes: "
                        f"{reason}; use graphscale.grow with a module of the target as target"
                    ) from None
            elif growth.stage is not None:
                copy_layer_sizes(growth.module, growth.stage.template)
            else:
                _take_program(growth.module, growth.program)
    for growth in growths:
        for parameter in growth.module.parameters():
            parameter.grad = None
            _forget_accumulator(parameter)
        refresh_computed_weights(growth.module)
        forget_image_size(growth.module)
        if growth.stage is not None:
            copy_image_size(growth.stage.template, growth.module)
        if growth.plan is None:
            detach_plan(growth.module)
            vars(growth.module).pop("graphscale_target", None)
        else:
            attach_plan(growth.module, growth.plan)
    put_states(states)


@contextmanager
def _restored_on_error(modules: Sequence[nn.Module]) -> Iterator[None]:
    """A context that restores layers, hooks and weights if an error is raised in it."""
    saved = []
    for module in modules:
        for layer in module.modules():
            hooks = [layer._forward_pre_hooks, layer._forward_hooks]
            saved.append((layer, dict(vars(layer)), [(each, dict(each)) for each in hooks]))
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    contents = [tensor.data for tensor in tensors]
    try:
        yield
    except BaseException:
        for layer, attributes, hooks in saved:
            vars(layer).clear()
            vars(layer).update(attributes)
            for held, before in hooks:
                held.clear()
                held.update(before)
        for tensor, content in zip(tensors, contents):
            tensor.data = content
        raise


def _forget_accumulator(parameter: nn.Parameter) -> None:
    """Let autograd make a new node that accumulates the parameter's gradient.

    The old node has the old shape, and lives as long as an old loss tensor or a reducer of
    DistributedDataParallel refers to it. Autograd drops it when the dtype of `.data` changes.
    """
    content = parameter.data
    other = torch.float64 if content.dtype != torch.float64 else torch.float32
    parameter.data = torch.empty(0, dtype=other, device=content.device)
    parameter.data = content


def _take_program(network: Network, program: Network) -> None:
    """Give `network` the graph of `program`, with its own Parameter objects in their places."""
    for name, parameter in network.named_parameters(remove_duplicate=False):
        owner, key = program._owner(name)
        owner._parameters[key] = parameter
    for name, buffer in network.named_buffers(remove_duplicate=False):
        if name in network.state_dict():
            owner, key = program._owner(name)
            owner._buffers[key] = buffer
    program.train(network.training)
    for key in ("_parameters", "_buffers", "_modules", "source", "_flat_names"):
        vars(network)[key] = vars(program)[key]
    network.set_program(program.graph)
