"""Find the checkpoint's tensor for each weight of the target.

Weights are matched by name and shape, and those that an exporter renamed by their place in the
graph and their shape. In go both networks and the wanted shapes, out come pairs of names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import onnx_ir as ir

from graphscale.core.detached_tensors import node_tensors
from graphscale.passes.graph.weight_source import weight_source

# Operator, place among its inputs, shape.
Signature = tuple[str, int, tuple[int, ...]]


def tensors_by_name(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Every initializer, and every Constant node's tensor by its output's name."""
    tensors = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    for node, _, attribute in node_tensors(model.graph):
        if node.op_type == "Constant":
            tensors[node.outputs[0].name] = attribute.value
    return tensors


def match_weights(
    target: ir.Model, checkpoint: ir.Model, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Names in `target` -> names in `checkpoint` of the weights that have `shapes` there.

    A weight of the same name and shape is taken first. The rest are matched by structure: the n-th
    weight that an operator of the same kind reads at the same place with the same shape, where both
    networks have equally many. Weights without a match are left out.
    """
    tensors = tensors_by_name(checkpoint)
    matched = {
        name: name
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape.numpy()) == shape
    }
    taken = set(matched.values())
    missing = {name: shape for name, shape in shapes.items() if name not in matched}
    if not missing:
        return matched
    free = {
        name: tuple(tensor.shape.numpy()) for name, tensor in tensors.items() if name not in taken
    }
    wanted, offered = _by_signature(target, missing), _by_signature(checkpoint, free)
    for signature, names in wanted.items():
        others = offered.get(signature, [])
        if len(others) == len(names):
            matched.update(zip(names, others, strict=True))
    return matched


def _by_signature(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]]
) -> dict[Signature, list[str]]:
    """Names of the weights in graph order, by the operator and place where each is first read."""
    found: dict[Signature, list[str]] = defaultdict(list)
    seen = set()
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            held = weight_source(value)
            if held is None or held.name in seen or held.name not in shapes:
                continue
            seen.add(held.name)
            found[node.op_type, index, shapes[held.name]].append(held.name)
    return found
