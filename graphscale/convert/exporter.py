"""`save`: write a trained module's weights into the graph that it was loaded from.

In: a module that `load` returned. Out: an onnx-ir model, a copy of the loaded one with new weights,
and a file if a path is given.
"""

from __future__ import annotations

import os

import onnx_ir as ir
import torch

from graphscale.convert.network import Network
from graphscale.convert.tensors import from_torch
from graphscale.convert.weights import constant_tensor
from graphscale.core.arguments import file_path
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import save_model


def save(module: torch.nn.Module, path: str | os.PathLike | None = None) -> ir.Model:
    """Write the module's weights into the graph that it was loaded from.

    The graph, its names, element types and metadata (with the plan) stay as they were.

    Args:
        module: What `load` returned, also inside torch.compile or DistributedDataParallel.
        path: File to write; with None no file is written.

    Returns:
        The model with the trained weights; the module's own copy of the model is not changed.

    Raises:
        GraphScaleError: the module was not made by `load`, or the file cannot be written.

    Example:
        >>> network = graphscale.load("model.onnx")                               # doctest: +SKIP
        >>> ...                                                                   # doctest: +SKIP
        >>> graphscale.save(network, "trained.onnx")                              # doctest: +SKIP
    """
    network = _network(module)
    file = None if path is None else file_path("path", path)
    model = network.source.model.clone()
    names = dict(network.named_parameters(remove_duplicate=False))
    names.update(network.named_buffers(remove_duplicate=False))
    nodes = {value.name: node for node in model.graph for value in node.outputs}
    for name, weight in names.items():
        value = model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            value.const_value = from_torch(weight, value.const_value, name)
        elif name in nodes:
            _set_node(nodes[name], weight)
    if file is not None:
        save_model(model, file)
    return model


def _network(module: torch.nn.Module) -> Network:
    """The network inside wrappers such as torch.compile's."""
    inner = module
    while not isinstance(inner, Network):
        wrapped = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if not isinstance(wrapped, torch.nn.Module):
            raise GraphScaleError(
                f"{type(module).__name__} was not loaded by graphscale; "
                "save the module that graphscale.load returned"
            )
        inner = wrapped
    return inner


def _set_node(node: ir.Node, weight: torch.Tensor) -> None:
    """Put the weight into a Constant node; a ConstantOfShape node becomes a Constant."""
    tensor = from_torch(weight, constant_tensor(node.outputs[0]), node.outputs[0].name)
    if node.op_type == "Constant":
        node.attributes["value"] = ir.AttrTensor("value", tensor)
        return
    node.op_type = "Constant"
    node.resize_inputs(0)
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)
