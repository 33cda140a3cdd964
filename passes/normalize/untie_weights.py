"""Give each layer its own biases and normalisation weights where an exporter merged equal ones.

torch's exporters keep one copy of equal small tensors. In an untrained network all biases are zeros
and all BatchNormalization scales are ones. Unrelated layers are therefore exported with one shared
tensor, sometimes as bias and running mean at once, and training would change it for all of them. A
tensor that holds one number repeated (a fill) is taken for merged; any other shared tensor is
shared on purpose.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.add_initializer import register_initializer
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.rewrite_result import RewriteResult

_NORMALIZATION = {1: "weight", 2: "bias"}

# Operator -> the inputs that fresh networks fill with constants, and what torch calls them.
_SLOTS = {
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    "InstanceNormalization": _NORMALIZATION,
    "LayerNormalization": _NORMALIZATION,
    "GroupNormalization": _NORMALIZATION,
    "RMSNormalization": {1: "weight"},
    "PRelu": {1: "weight"},
    "Conv": {2: "bias"},
    "ConvTranspose": {2: "bias"},
    "Gemm": {2: "bias"},
}


class UntieWeights(ir.passes.InPlacePass):
    """Give each layer that reads a merged weight its own; the result names the new initializers."""

    def call(self, model: ir.Model) -> RewriteResult:
        """Untie in place."""
        fills = [each for each in model.graph.initializers.values() if _is_fill(each.const_value)]
        if not fills:
            return RewriteResult.of(model, [])
        names = FreeNames.for_values(model)
        order = {node: number for number, node in enumerate(model.graph)}
        added: list[str] = []
        for value in fills:
            added += _untie_identities(model, value, names)
            added += _untie_readers(model, value, order, names)
        return RewriteResult.of(model, added)


def _is_fill(tensor: ir.TensorProtocol | None) -> bool:
    """Whether a tensor is one floating-point number repeated."""
    if tensor is None or not tensor.dtype.is_floating_point() or len(tensor.shape) == 0:
        return False
    array = tensor.numpy()
    # Nearly every trained weight differs in its first few numbers: the rest need not be read.
    first = array.flat[:64]
    return array.size > 0 and bool((first == first[0]).all() and (array == first[0]).all())


def _slot(node: ir.Node, index: int) -> str | None:
    """What torch calls input `index` of a node, if it is one of `_SLOTS`."""
    return _SLOTS.get(node.op_type, {}).get(index) if node.domain == "" else None


def _untie_identities(model: ir.Model, value: ir.Value, names: FreeNames) -> list[str]:
    """Turn each Identity of `value` that feeds a layer into an initializer of its output's name."""
    added = []
    for node, _ in list(value.uses()):
        output = node.outputs[0]
        if node.op_type != "Identity" or node.domain != "" or output.is_graph_output():
            continue
        if any(_slot(reader, index) for reader, index in output.uses()):
            name = names.hand_over(output, "_merged")
            output.replace_all_uses_with(_copy(model, name, value))
            node.graph.remove(node, safe=True)
            added.append(name)
    return added


def _untie_readers(
    model: ir.Model, value: ir.Value, order: Mapping[ir.Node, int], names: FreeNames
) -> list[str]:
    """Give each layer that reads `value` itself its own copy, except one layer."""
    # Readers by layer and input: two nodes of one layer keep sharing.
    places: dict[Hashable, list[tuple[ir.Node, int]]] = {}
    readers = [use for use in value.uses() if use.node in order and _slot(*use)]
    for node, index in sorted(readers, key=lambda use: (order[use.node], use.idx)):
        places.setdefault((_layer(node), index), []).append((node, index))
    if len(places) < 2:
        return []
    # The layer that the weight is named after keeps it, or else the first one.
    owner = next(
        (key for key, uses in places.items() if value.name.endswith(f".{_slot(*uses[0])}")),
        next(iter(places)),
    )
    stem, _, role = value.name.rpartition(".")
    named = bool(stem) and role == _slot(*places[owner][0])
    added = []
    for key, uses in places.items():
        if key != owner:
            same_layer = named and key[0] == owner[0]
            name = f"{stem}.{_slot(*uses[0])}" if same_layer else _name(*uses[0])
            copy = _copy(model, names.free(name), value)
            for node, index in uses:
                node.replace_input_with(index, copy)
            added.append(copy.name)
    return added


def _layer(node: ir.Node) -> Hashable:
    """What tells layers apart: the kernel, where nodes share one, for they are one layer then."""
    kernel = node.inputs[1]
    if 1 in _SLOTS[node.op_type] or kernel is None or _is_fill(kernel.const_value):
        return node
    return kernel


def _name(node: ir.Node, index: int) -> str:
    """A name like the exporter's: after the layer's other weights, or else after the node."""
    role = _slot(node, index)
    for other, value in enumerate(node.inputs):
        stem, dot, last = ("" if value is None else value.name or "").rpartition(".")
        own = other > 0 and other != index and value is not None and len(value.uses()) == 1
        if own and dot and last == (_slot(node, other) or "weight"):
            return f"{stem}.{role}"
    return f"{node.name or node.outputs[0].name}.{role}"


def _copy(model: ir.Model, name: str, value: ir.Value) -> ir.Value:
    return register_initializer(model, name, np.array(value.const_value.numpy()))
