"""Trace a torch module to an ONNX graph whose nodes know which submodule they come from.

In: a module and an example input. Out: an onnx-ir model; its initializers have the module's
state-dict names, and `module_path.module_path(node)` gives the submodule of a node.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import onnx_ir as ir
import onnx_ir.passes.common
import onnxscript.optimizer
import torch

from graphscale.convert.operators.normalization import DROPS
from graphscale.core.errors import GraphScaleError
from graphscale.layers.export import add_function_bodies, to_onnx
from graphscale.layers.quiet_tracing import quiet_tracing
from graphscale.modules.example import Example
from graphscale.modules.functional_program import functional_program
from graphscale.modules.keep_dropout import mark_dropout, place_dropout
from graphscale.modules.module_path import SCOPES, module_path
from graphscale.modules.module_state import tensors_of
from graphscale.modules.own_padding import PADS_ITSELF, merge_own_padding
from graphscale.modules.translate_program import translate_program
from graphscale.passes.graph.fixed_weights import mark_fixed
from graphscale.passes.graph.weight_source import tensor_of, weight_source
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.registry import product_rule

rules.load()

# Elements of constants that a forward computes, such as the masks of windows of a large map.
_LARGEST_FOLDED = 1 << 20
_WITH_ADDED_WEIGHTS = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization"}


def trace_module(
    module: torch.nn.Module,
    example: Example,
    *,
    quick: bool = True,
    slow: bool = True,
    keep_dropout: bool = False,
) -> ir.Model:
    """The ONNX graph of `module`, in which nothing that reads weights is folded.

    The batch is symbolic where the module allows it, else the example's.

    Args:
        module: In the mode in which it is traced.
        example: Inputs at the target's size.
        quick: Skip torch.onnx's decompositions where the module allows it.
        slow: Leave the module to torch.onnx's own strategies where it does not.
        keep_dropout: Keep dropout and drop-path layers as Dropout nodes.

    Raises:
        GraphScaleError: torch cannot export the module.
    """
    marks = mark_dropout(module) if keep_dropout else []
    try:
        with quiet_tracing(), _attributes_kept(module):
            model = _exported(module, example, quick, slow)
    finally:
        for mark in marks:
            mark.remove()
    # torch.chunk is traced as operators on sequences; folding their sizes makes them plain Splits.
    own = set(tensors_of(module))
    onnxscript.optimizer.fold_constants(
        model,
        input_size_limit=_LARGEST_FOLDED,
        output_size_limit=_LARGEST_FOLDED,
        should_fold=partial(_may_be_folded, own),
    )
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) > 2 and _is_zeros(node.inputs[2]):
            node.resize_inputs(2)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    place_dropout(model)  # after folding, which would remove Dropout
    add_function_bodies(model)
    for name, _ in module.named_buffers(remove_duplicate=False):
        if name in model.graph.initializers:
            mark_fixed(model.graph.initializers[name])
    merge_own_padding(model, module)
    # torch gives a shared weight the last of its names; the state dict's first one is wanted.
    names = {id(weight): name for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters(remove_duplicate=False):
        if name in model.graph.initializers and names[id(weight)] != name:
            model.graph.initializers[name].name = names[id(weight)]
    model.meta["source"] = type(module).__name__
    _name_after_layers(model.graph)
    for node in model.graph.all_nodes():
        for key in node.metadata_props.keys() - {SCOPES, DROPS, PADS_ITSELF}:
            del node.metadata_props[key]
    return model


@contextmanager
def _attributes_kept(module: torch.nn.Module) -> Iterator[None]:
    """A context whose end undoes what a forward remembers in attributes: tensors without data."""

    def own(layer: torch.nn.Module) -> dict[str, object]:
        return {key: value for key, value in vars(layer).items() if not key.startswith("_")}

    kept = {
        layer: {
            key: copy.copy(value) if isinstance(value, dict | list) else value
            for key, value in own(layer).items()
        }
        for layer in module.modules()
    }
    try:
        yield
    finally:
        for layer, values in kept.items():
            for key in own(layer).keys() - values.keys():
                del vars(layer)[key]
            vars(layer).update(values)


def _exported(module: torch.nn.Module, example: Example, quick: bool, slow: bool) -> ir.Model:
    batched = example.batched()
    options = {"optimize": False, "external_data": False}
    if any(weight.dtype == torch.bfloat16 for weight in module.parameters()):
        options["opset_version"] = 22  # the first one with convolutions in bfloat16
    program = functional_program(module, batched) if quick else None
    if program is not None:
        model = translate_program(program)
        if model is not None:
            return model
        try:
            return to_onnx(program, (), dynamic_shapes=batched.batch_name(), **options)
        except GraphScaleError:
            pass  # torch.onnx translates one of its operators only after decomposing it
    if not slow:
        raise GraphScaleError(
            f"torch cannot export {type(module).__name__} without decomposing it; allow that"
        )
    try:
        return to_onnx(
            module,
            batched.args,
            kwargs=batched.kwargs,
            dynamic_shapes=batched.symbolic_batch(),
            **options,
        )
    except GraphScaleError:
        return to_onnx(module, example.args, kwargs=example.kwargs, **options)


def _name_after_layers(graph: ir.Graph) -> None:
    """Name nodes after the submodules that they come from, as messages and `keep` name them.

    The one convolution or matrix product of a submodule has the submodule's path as its name, any
    other node the path and a name of its own.
    """
    products = Counter(module_path(node) for node in graph if product_rule(node))
    for node in graph:
        path = module_path(node)
        if path and product_rule(node) and products[path] == 1:
            node.name = path
        elif path:
            node.name = f"{path}.{(node.name or '').removeprefix('node_')}"


def _may_be_folded(own: set[str], node: ir.Node) -> bool | None:
    """False for a node that is not to be folded; None leaves it to the folder.

    Nodes that read one of the module's `own` tensors stay, and so do those that make the biases and
    scales that the exporter adds to layers without any.
    """
    if any(value is not None and value.name in own for value in node.inputs):
        return False
    readers = {usage.node.op_type for output in node.outputs for usage in output.uses()}
    return False if readers & _WITH_ADDED_WEIGHTS else None


def _is_zeros(value: ir.Value) -> bool:
    """Whether a bias is the zeros that the exporter adds to a layer without one."""
    node = value.producer()
    if node is None or node.op_type != "Expand":
        return False
    fill = weight_source(node.inputs[0])
    return fill is not None and not tensor_of(fill).numpy().any()
