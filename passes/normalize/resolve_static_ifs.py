"""Replace each If whose condition follows from shapes alone by the branch that is taken.

torch's older exporter writes such an If where a dimension may have to be squeezed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.infer_shapes import ShapeInference
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult


class ResolveStaticIfs(ir.passes.InPlacePass):
    """Resolve Ifs at the given input shapes; the result names their nodes.

    An If whose condition depends on the data stays. One walk infers shapes and resolves, so that
    the time is linear in the number of nodes.

    Args:
        input_shapes: The shape of each input that a caller feeds.

    Raises:
        GraphScaleError: as `infer_shapes`, of the nodes before the last If.
    """

    def __init__(self, input_shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._input_shapes = input_shapes

    def call(self, model: ir.Model) -> RewriteResult:
        """Resolve in place."""
        waiting = sum(map(_is_if, model.graph))
        if not waiting:
            return RewriteResult.of(model, [])
        inference = ShapeInference(model, self._input_shapes)
        names = FreeNames.for_values(model)
        resolved = []
        for node in model.graph:  # continues with the nodes of a taken branch, and with Ifs there
            if _is_if(node):
                waiting -= 1
                condition = inference.found.constants.get(node.inputs[0])
                if condition is not None:
                    resolved.append(node_name(node))
                    taken = bool(condition.reshape(-1)[0])
                    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
                    waiting += sum(map(_is_if, branch))
                    _inline(model.graph, node, branch, inference, names)
                    continue
            if not waiting:
                break
            inference.visit(node)
        return RewriteResult.of(model, resolved)


def _is_if(node: ir.Node) -> bool:
    return node.op_type == "If" and node.domain == ""


def _inline(
    graph: ir.Graph,
    node: ir.Node,
    branch: ir.Graph,
    inference: ShapeInference,
    names: FreeNames,
) -> None:
    """Move the nodes and initializers of `branch` into the graph, in the place of its If."""
    results, inner = list(branch.outputs), list(branch)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name)
        if value.name in graph.initializers:  # another branch's, which was resolved before
            value.name = names.free(value.name)
        graph.register_initializer(value)
        inference.add_initializer(value)
    branch.remove(inner)
    replace_node(node, inner, results)
