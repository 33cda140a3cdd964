"""A torch module as an ONNX graph whose nodes know which part of the module they come from."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common
import onnxscript.optimizer
import torch
from torch.utils import _pytree as pytree

from graphscale.core.errors import GraphScaleError
from graphscale.layers.export import add_function_bodies, to_onnx
from graphscale.passes.graph.weight_source import tensor_of, weight_source

_SCOPES = "pkg.torch.onnx.name_scopes"  # metadata of nodes: paths of the modules being called


class Example:
    """The inputs a module is called with: a tensor, a tuple of arguments, or a dict of keywords."""

    def __init__(self, given: Any) -> None:
        self.kwargs = dict(given) if isinstance(given, Mapping) else {}
        if isinstance(given, list | tuple):
            self.args = tuple(given)
        else:
            self.args = () if isinstance(given, Mapping) else (given,)
        if not self.tensors:
            raise GraphScaleError(
                "shrinking a torch module needs an example_input: a tensor of the target's size, "
                "a tuple of arguments, or a dict of keyword arguments"
            )

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors, in the order of the graph's inputs."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def map(self, function) -> Example:
        """The example with each tensor replaced by function(tensor)."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, function, (self.args, self.kwargs))
        return Example(kwargs or args)

    def batched(self) -> Example:
        """With two pictures for one: torch.export takes a batch of one for a constant."""
        if all(each.shape[:1] == (1,) for each in self.tensors):
            return self.map(lambda each: torch.cat([each, each]))
        return self

    def symbolic_batch(self) -> Any:
        """torch.export's description of the inputs' first axis as a batch of any size."""
        batch = torch.export.Dim("batch")

        def describe(leaf: Any) -> Any:
            return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.ndim else None

        return pytree.tree_map(describe, self.kwargs or self.args)


def trace_module(module: torch.nn.Module, example: Example) -> ir.Model:
    """The graph of `module`, its weights under their state-dict names, nothing folded.

    The batch is symbolic where the module allows it, else the example's.

    Raises:
        GraphScaleError: torch cannot export the module.
    """
    batched = example.batched()
    options = {"optimize": False, "external_data": False}
    if any(weight.dtype == torch.bfloat16 for weight in module.parameters()):
        options["opset_version"] = 22  # the first one with convolutions in bfloat16
    with _quiet():
        try:
            model = to_onnx(
                module,
                batched.args,
                kwargs=batched.kwargs,
                dynamic_shapes=batched.symbolic_batch(),
                **options,
            )
        except GraphScaleError:
            model = to_onnx(module, example.args, kwargs=example.kwargs, **options)
    # Chunks are sequences as traced; folding the numbers that cut them makes them plain Splits.
    onnxscript.optimizer.fold_constants(model, should_fold=_computes_numbers)
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) > 2 and _is_zeros(node.inputs[2]):
            node.resize_inputs(2)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    add_function_bodies(model)
    # A shared weight bears the last of its names.
    names = {id(weight): name for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters(remove_duplicate=False):
        if name in model.graph.initializers and names[id(weight)] != name:
            model.graph.initializers[name].name = names[id(weight)]
    model.meta["source"] = type(module).__name__
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[_SCOPES] = scopes
    return model


def module_path(node: ir.Node) -> str | None:
    """Path of the module in whose forward a node of a traced graph stands; '' is the root."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 and scopes[0] == "" else None


def _computes_numbers(node: ir.Node) -> bool | None:
    """Whether folding may look at a node: never at one that reads weights."""
    weights = (value for value in node.inputs if value is not None and value.is_initializer())
    return False if any(value.dtype.is_floating_point() for value in weights) else None


def _is_zeros(value: ir.Value) -> bool:
    """Whether a bias is the filled-up one that the exporter gives to layers without."""
    node = value.producer()
    if node is None or node.op_type != "Expand":
        return False
    fill = weight_source(node.inputs[0])
    return fill is not None and not tensor_of(fill).numpy().any()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter reports on itself, by warnings and by its loggers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch._guards")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
