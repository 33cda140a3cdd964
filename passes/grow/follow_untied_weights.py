"""Untie the weights of a target network as they are untied in a trained checkpoint.

torch's exporters merge equal small tensors of untrained networks, and training unties them
(`UntieWeights`): each layer of the checkpoint has a weight of its own where layers of the target
still share one. Each of these layers of the target gets a weight of the checkpoint's name, so that
`grow_graph` can fill it with what the layer has learned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from graphscale.passes.graph.add_initializer import register_initializer
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.rewrite_result import RewriteResult


class FollowUntiedWeights(ir.passes.InPlacePass):
    """Add the checkpoint's untied weights to the target, unfilled; the result names them.

    Args:
        checkpoint: The trained network. Its layers are found by the names of their outputs.
        constants: Names of the checkpoint's constants that hold shapes and are not weights.
    """

    def __init__(self, checkpoint: ir.Model, constants: Collection[str]) -> None:
        super().__init__()
        self._layers = {node.outputs[0].name: node for node in checkpoint.graph if node.outputs}
        self._constants = set(constants)

    def call(self, model: ir.Model) -> RewriteResult:
        """Change the target in place."""
        known = model.graph.initializers
        names: FreeNames | None = None
        tied: dict[ir.Value, bool] = {}
        added: list[str] = []
        for node in model.graph:
            layer = self._layers.get(node.outputs[0].name) if node.outputs else None
            if layer is None or layer.op_type != node.op_type:
                continue
            for index, (mine, theirs) in enumerate(zip(node.inputs, layer.inputs)):
                if mine is None or not _is_weight(theirs) or theirs.name in self._constants:
                    continue
                if mine not in tied:
                    tied[mine] = _is_tied(mine, self._layers)
                if not tied[mine] or (mine.is_initializer() and mine.name == theirs.name):
                    continue
                identity = mine.producer()
                if theirs.name not in known:
                    if identity is not None:
                        names = names or FreeNames.for_values(model)
                        names.hand_over(mine, "_merged")
                    register_initializer(model, theirs.name, theirs.const_value.numpy())
                    added.append(theirs.name)
                    if identity is not None:  # it only gave the merged weight another name
                        mine.replace_all_uses_with(known[theirs.name])
                        model.graph.remove(identity, safe=True)
                        continue
                node.replace_input_with(index, known[theirs.name])
        return RewriteResult.of(model, added)


def _is_weight(value: ir.Value | None) -> bool:
    """Whether a value of the checkpoint is an initializer that can have been trained."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return False
    return value.const_value.dtype.is_floating_point()


def _is_tied(mine: ir.Value, layers: Mapping[str, ir.Node]) -> bool:
    """Whether the target has one weight where the checkpoint may have several.

    That is an Identity of an initializer, or an initializer whose readers read weights of several
    names in the checkpoint. Where they all read one other name, it was renamed.
    """
    producer = mine.producer()
    if producer is not None:
        return producer.op_type == "Identity" and producer.inputs[0].is_initializer()
    if not mine.is_initializer():
        return False
    read = set()
    for node, index in mine.uses():
        layer = layers.get(node.outputs[0].name)
        if layer is not None and index < len(layer.inputs) and layer.inputs[index] is not None:
            read.add(layer.inputs[index].name)
    return len(read) > 1
