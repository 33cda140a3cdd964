"""Shrink a torch module, or plan what shrinking it would do.

In: a module and an example input. Out: a pre-train module with its plan, or the plan alone.

The module is traced to an ONNX graph, which is planned and shrunk like any other. Then the layers
of a copy of the module get the graph's sizes: same class, same state-dict keys. The copy is run and
compared with the graph. Where they differ (a size is written into its forward), the result is the
graph itself, as `load` imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from graphscale.convert.exporter import save
from graphscale.convert.importer import load, load_structure
from graphscale.convert.network import Network
from graphscale.convert.tensors import to_torch
from graphscale.core.arguments import texts
from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable, kernel_table
from graphscale.core.plan import DERIVED_KINDS, Plan
from graphscale.modules.check_image_size import check_image_size, forget_image_size
from graphscale.modules.computed_weights import (
    ComputedWeights,
    find_computed_weights,
    refresh_computed_weights,
    resized_companions,
)
from graphscale.modules.edit_layers import CannotEditError, edit_layers
from graphscale.modules.example import Example
from graphscale.modules.module_state import (
    adopt_frozen,
    adopt_modes,
    copy_module,
    copy_without_weights,
    device_of,
    fill,
    memory_formats,
    tensors_of,
    unwrapped,
)
from graphscale.modules.plan_in_state_dict import attach_plan
from graphscale.modules.resize_weight import shrink_weight
from graphscale.modules.stand_in import stand_in
from graphscale.modules.trace_module import trace_module
from graphscale.modules.training_parts import (
    evaluation,
    has_more,
    lacks_parts,
    with_training_parts,
)
from graphscale.modules.why_outputs_differ import why_outputs_differ
from graphscale.passes.graph.fixed_weights import is_fixed
from graphscale.rescaling.input_size import InputSize, Size, has_fixed_size
from graphscale.rescaling.plan import plan_model
from graphscale.rescaling.shrink import check_initialization, shrink_model

_BATCH = 2  # images on which the shrunk module is compared with its graph
_Mode = Callable[[nn.Module], nn.Module]
# What errors about ONNX files say -> what they say about modules.
_FOR_MODULES = {
    "--input-size 224:224": 'input_size="224:224"',
    "--input-size": "input_size",
    "--keep": "keep",
    "names are listed by --dry-run --json": "names are those of graphscale.plan(...).layers",
    "cut the model before it or replace the node": "shrink the part of the module before it, or "
    "replace it by another",
    "cut the model before it, replace the node": "shrink the part of the module before it, "
    "replace it by another",
}


@dataclass
class _Shrunk:
    """One attempt: the edited copy of the module, and the shrunk graph that it should equal.

    Attributes:
        module: The copy, of the target's class.
        model: The shrunk graph.
        plan: The plan, in which weights have the module's names.
        reason: Why the module does not compute what the graph does; None if it does.
    """

    module: nn.Module
    model: ir.Model
    plan: Plan
    reason: str | None


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
    """Derive the pre-train network of a target module, which is not changed.

    Args:
        module: The target; also inside torch.compile or DistributedDataParallel, also on the meta
            device.
        example_input: Arguments at the target's size: a tensor, a tuple of arguments or a dict of
            keyword arguments.
        input_size, kernels, keep, init, seed: As for `graphscale.shrink`.

    Returns:
        A module of the same class with the same state-dict keys, whose attribute `graphscale_plan`
        holds the plan (`graphscale_plan.image_size` is the size of images that it takes). Where the
        class cannot take the plan's sizes, kernels of 3 pixels stay as they are, if that helps;
        else the result is the module that `load` makes of the shrunk graph. A warning says which,
        and why. A shrunk module may be shrunk again: growing the result
        gives the shrunk module, which grows once more.

    Raises:
        GraphScaleError: torch cannot export the module, or the graph cannot be rescaled.
    """
    module = unwrapped(module)
    init = "auto" if init is None else init
    check_initialization(init, seed)
    options = _checked(input_size, kernels, keep) | {"init": init, "seed": seed}
    if isinstance(module, Network):
        return _shrink_network(module, options)
    example = Example(example_input)
    with _named_for_modules():
        if any(tensor.is_meta for tensor in tensors_of(module).values()):
            options["init"] = "resize" if init == "auto" else init
            return _shrink(_materialized(module), _on_cpu(example), options).to("meta")
        return _shrink(module, example, options)


def plan_module(module: nn.Module, example_input: Any, **options: Any) -> Plan:
    """The plan by which `shrink_module` would shrink `module`; no weight is read or changed.

    Args:
        module, example_input: As for `shrink_module`.
        options: `input_size`, `kernels` and `keep`, as for `graphscale.shrink`.

    Raises:
        GraphScaleError: as `shrink_module` does.
    """
    module = unwrapped(module)
    options = _checked(**options)
    if isinstance(module, Network):
        return plan_model(save(module), **options)
    example = _on_cpu(Example(example_input))
    traced = _materialized(module)

    def plan(parts: bool) -> Plan:
        model, mode = _traced(traced, example, parts=parts)
        computed = find_computed_weights(model.graph, traced)
        try:
            return computed.renamed(plan_model(model, **options))
        except GraphScaleError:
            if mode is evaluation:
                raise
            return plan(parts=False)

    with _named_for_modules():
        return plan(parts=True)


def _checked(
    input_size: Size = None, kernels: KernelTable | None = None, keep: Sequence[str] = ()
) -> dict[str, Any]:
    """Options of shrink; a wrong one is an error before any attempt with these or others."""
    InputSize.parse(input_size, fixed=True)
    kernels, keep = kernel_table(kernels), texts("keep", keep)
    return {"input_size": input_size, "kernels": kernels, "keep": keep}


@contextmanager
def _named_for_modules() -> Iterator[None]:
    """A context in which errors speak of arguments and modules, not of options and nodes."""
    try:
        yield
    except GraphScaleError as error:
        text = str(error)
        for words, others in _FOR_MODULES.items():
            text = text.replace(words, others)
        raise GraphScaleError(text) from error


def _shrink(module: nn.Module, example: Example, options: dict) -> nn.Module:
    result, refusal = None, None
    try:
        result = _attempt(module, example, options, whole=False)
    except GraphScaleError as error:
        refusal = error
    if result is not None and result.reason is not None and _cuts_windows(result.model.graph):
        # The class may be one whose windows cannot be made smaller.
        with suppress(GraphScaleError):
            result = _attempt(module, example, {**options, "scale_windows": False}, whole=False)
    if result is None or result.reason is not None:
        # Or one that needs maps of exactly the sizes that kernels of even size cannot keep.
        odd = _odd_kernels(module, example, options)
        if odd is not None:
            reason = refusal or result.reason
            warnings.warn(
                f"{type(module).__name__}: kernels of 3 pixels keep their size, because with "
                f"smaller ones {reason}",
                stacklevel=4,
            )
            result = odd
    if result is None:
        raise refusal
    if result.reason is not None:
        # The quick trace may be the cause, and the graph needs dropout if it is to be trained.
        with suppress(GraphScaleError):  # torch.onnx may lack what the quick trace has
            result = _attempt(module, example, options, whole=True)
    plan = result.plan
    if result.reason is None:
        shrunk = result.module
        if hasattr(module, "graphscale_plan"):
            shrunk.graphscale_outer_plans = [
                *getattr(module, "graphscale_outer_plans", ()),
                module.graphscale_plan,
            ]
    else:
        network = load(result.model).to(device_of(module))
        plan = Plan.of(result.model)  # in which computed weights have the network's names
        shrunk, lacks = stand_in(network, module, plan, set(result.model.graph.initializers))
        warnings.warn(
            f"{type(module).__name__} cannot take the plan's sizes: {result.reason}. The result is "
            f"the network that graphscale.load makes of the shrunk graph{lacks}",
            stacklevel=4,
        )
    attach_plan(shrunk, plan)
    check_image_size(shrunk, plan, example)
    return shrunk


def _odd_kernels(module: nn.Module, example: Example, options: dict) -> _Shrunk | None:
    """An attempt in which kernels of 3 pixels keep their size; None where it does not succeed.

    With kernels of odd size alone, a map keeps its size without unequal padding.
    """
    table = {3: 3, **(options["kernels"] or {})}
    try:
        result = _attempt(module, example, {**options, "kernels": table}, whole=False)
    except GraphScaleError:
        return None
    return result if result.reason is None else None


def _cuts_windows(graph: ir.Graph) -> bool:
    """Whether a Reshape cuts both sizes of a map in two."""
    return any(
        node.op_type == "Reshape"
        and all(value.shape is not None for value in (node.inputs[0], node.outputs[0]))
        and (len(node.inputs[0].shape), len(node.outputs[0].shape)) == (4, 6)
        for node in graph
    )


def _attempt(
    module: nn.Module, example: Example, options: dict, whole: bool, parts: bool = True
) -> _Shrunk:
    """Trace the module, shrink the graph, and give a copy of the module the graph's sizes.

    Args:
        module, example: The target and its arguments.
        options: Of `shrink_model`.
        whole: Trace by torch.onnx's slower strategy, in evaluation mode, and keep dropout layers,
            which only training needs.
        parts: Shrink the parts that run only in training, too, where they can be shrunk.
    """
    edited = copy_module(module)
    model, mode = _traced(edited, example, whole, parts and not whole)
    adopt_modes(edited, module)
    forget_image_size(edited)
    try:
        result = _edited(edited, model, mode, example, options)
    except GraphScaleError:
        if mode is evaluation:
            raise
        result = None
    if mode is not evaluation and (result is None or result.reason is not None):
        return _attempt(module, example, options, whole, parts=False)
    return result


def _traced(
    module: nn.Module, example: Example, whole: bool = False, parts: bool = True
) -> tuple[ir.Model, _Mode]:
    """The graph of the module, and what puts the module into the mode in which it was traced."""
    model = trace_module(evaluation(module), example, quick=not whole, keep_dropout=whole)
    if parts and lacks_parts(model.graph, module):
        try:
            more = trace_module(with_training_parts(module), example, slow=False)
        except GraphScaleError:
            return model, evaluation
        if has_more(more.graph, model.graph, module):
            return more, with_training_parts
    return model, evaluation


def _edited(
    edited: nn.Module, model: ir.Model, mode: _Mode, example: Example, options: dict
) -> _Shrunk:
    """Shrink the graph `model` of `edited`, and give `edited` its sizes."""
    computed = find_computed_weights(model.graph, edited)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    model, plan = shrink_model(model, **options)
    changed = [
        value
        for name, value in model.graph.initializers.items()
        if value.const_value is not before.get(name)
    ]
    reason = None
    try:
        _take_weights(edited, changed, plan, computed)
        edit_layers(edited, model.graph)
    except CannotEditError as error:
        reason = str(error)
    if reason is None:
        device = device_of(edited)
        network = load_structure(model, _BATCH)
        held = set(network.state_dict())
        network = copy_without_weights(network, held).to(device)
        fed = _pretrain_example(example, model)
        own = {*tensors_of(edited), *computed.kernels}
        fixed = {
            name: to_torch(value.const_value).to(device)
            for name, value in model.graph.initializers.items()
            if name in held and (is_fixed(value) or name not in own)
        }
        reason = why_outputs_differ(edited, network, fed, computed, fixed, mode)
    return _Shrunk(edited, model, computed.renamed(plan), reason)


def _take_weights(
    module: nn.Module,
    changed: list[ir.Value],
    plan: Plan,
    computed: ComputedWeights,
) -> None:
    """Put the tensors of the `changed` initializers into the module, one after the other.

    Raises:
        CannotEditError: the plan resizes a weight that the module does not have.
    """
    own = tensors_of(module)
    weights = {weight.name: weight for weight in plan.weights}
    for name, weight in weights.items():
        # What follows from sizes, such as a mask, the forward may compute from the new ones.
        if computed.source_of(name) not in own and weight.kind not in DERIVED_KINDS:
            raise CannotEditError(f"its forward computes the weight {name!r} from others")
    for value in changed:
        name, source = value.name, computed.source_of(value.name)
        if source == name and name in own:
            fill(module, {name: to_torch(value.const_value)})
            # The graph's tensor was computed from the module's old one; read the new one instead.
            value.const_value = TorchTensor(own[name].detach().cpu(), name=name)
            continue
        value.const_value = ir.Tensor(value.const_value.numpy(), value.dtype, name=name)
        if source == name:
            continue
        old = own[source].detach().clone()
        fresh = plan.init == "fresh" or name not in weights
        new = to_torch(value.const_value).to(old) if fresh else shrink_weight(old, weights[name])
        fill(module, {source: new, **resized_companions(source, old, new, own)})
    refresh_computed_weights(module)


def _shrink_network(module: Network, options: dict) -> Network:
    """The pre-train network of an imported network, which remembers the size of an open target."""
    target = save(module)
    fixed = has_fixed_size(target)
    loaded_for = module.source.options["input_size"]
    size = InputSize.parse(options["input_size"], fixed)
    if not fixed and size.target is None and loaded_for is not None:
        size = InputSize(tuple(loaded_for), size.pretrain)
    model, plan = shrink_model(target, **{**options, "input_size": size})
    sizes = size.target if size.target is None or len(size.target) > 1 else size.target * 3
    network = load(model, input_size=sizes).to(device_of(module))
    network.train(module.training)
    adopt_frozen(network, module)
    fill(network, tensors_of(network), memory_formats(module))
    attach_plan(network, plan)
    return network


def _materialized(module: nn.Module) -> nn.Module:
    """A copy in which tensors on the meta device are zeros on the CPU, for tracing."""
    memo = {}
    for tensor in tensors_of(module).values():
        if tensor.is_meta:
            zeros = torch.zeros(tensor.shape, dtype=tensor.dtype)
            memo[id(tensor)] = (
                nn.Parameter(zeros, tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else zeros
            )
    return copy_module(module, memo)


def _on_cpu(example: Example) -> Example:
    return example.map(lambda each: torch.zeros_like(each, device="cpu") if each.is_meta else each)


def _pretrain_example(example: Example, model: ir.Model) -> Example:
    """Random inputs of the pre-train network's shapes; two images where the batch is symbolic."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if not any(isinstance(value.shape[0], int) for value in inputs if len(value.shape)):
        example = example.batched().first_images(_BATCH)
    shapes = iter([value.shape for value in inputs])
    generator = torch.Generator().manual_seed(0)

    def random(tensor: torch.Tensor) -> torch.Tensor:
        sizes = [b if isinstance(b, int) else a for a, b in zip(tensor.shape, next(shapes))]
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(sizes, generator=generator).to(tensor)

    return example.map(random)
