"""Give the target the weights of its own that a checkpoint's layers have got.

torch's exporters merge equal small tensors of untrained networks, and training takes them apart
(`separate_weights`). A target whose layers still share such a tensor must not lose what each of
them learned: where the checkpoint's layer reads a weight of another name than the same layer of
the target, the target's layer gets that weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from graphscale.passes.graph.add_initializer import add_initializer


def follow_separation(
    target: ir.Model, checkpoint: ir.Model, constants: Collection[str]
) -> list[str]:
    """Add the separated weights to `target`, unfilled; returns their names.

    `constants` are the names of the checkpoint's constants that hold shapes: no weights.
    """
    layers = {node.outputs[0].name: node for node in checkpoint.graph if node.outputs}
    known = target.graph.initializers
    added: list[str] = []
    for node in list(target.graph):
        other = layers.get(node.outputs[0].name)
        if other is None or other.op_type != node.op_type:
            continue
        for index, (mine, theirs) in enumerate(zip(node.inputs, other.inputs)):
            if mine is None or theirs is None or theirs.name in constants:
                continue
            if not _separated(mine, theirs, layers):
                continue
            if theirs.name not in known:
                producer = mine.producer()
                if producer is not None:  # the Identity that stood for the merged weight
                    mine.name = f"{mine.name}_merged"
                array = theirs.const_value.numpy()
                added.append(add_initializer(target, theirs.name, array).name)
                if producer is not None:
                    mine.replace_all_uses_with(known[theirs.name])
                    target.graph.remove(producer, safe=True)
                    continue
            node.replace_input_with(index, known[theirs.name])
    return added


def _separated(mine: ir.Value, theirs: ir.Value, layers: Mapping[str, ir.Node]) -> bool:
    """Whether the checkpoint reads a weight of its own where the target reads a merged one."""
    if not theirs.is_initializer() or theirs.const_value is None:
        return False
    if not theirs.const_value.dtype.is_floating_point():
        return False
    producer = mine.producer()
    if producer is not None:
        return producer.op_type == "Identity" and producer.inputs[0].is_initializer()
    return mine.is_initializer() and mine.name != theirs.name and len(_readings(mine, layers)) > 1


def _readings(mine: ir.Value, layers: Mapping[str, ir.Node]) -> set[str]:
    """What the checkpoint's `layers` read where the target's read `mine`: one name if renamed."""
    names = set()
    for node, index in mine.uses():
        other = layers.get(node.outputs[0].name)
        if other is not None and index < len(other.inputs) and other.inputs[index] is not None:
            names.add(other.inputs[index].name)
    return names
