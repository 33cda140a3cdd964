"""Compute both branches of an If that holds layers, and select the result by its condition.

The rules that follow heights and widths, and the import into torch, work on one graph. An If whose
condition depends on the data becomes its two branches and a Where per output, which gives the same
numbers and lets gradients reach the branch that was selected. The target network that a plan
carries keeps its If, so that growing gives it back; `lift_branch_weights` moves the weights of its
branches to the graph itself, where they are found by name.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common

from graphscale.core.node_names import node_name
from graphscale.passes.graph.depends_on_data import depends_on_data
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.normalize.unroll_loops import rounds_of_layers
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.registry import product_rule

rules.load()

_FIRST_WITH_WHERE = 9  # opset


class SelectBranches(ir.passes.InPlacePass):
    """Replace each If that holds layers and depends on the data; the result names them."""

    def call(self, model: ir.Model) -> RewriteResult:
        """Replace in place; Ifs in branches are replaced, too."""
        replaced: list[str] = []
        names: FreeNames | None = None
        for node in model.graph:  # continues with the nodes of the branches
            if _is_candidate(node, model):
                names = names or FreeNames.for_values(model)
                replaced.append(node_name(node))
                _replace(model.graph, node, names)
        return RewriteResult.of(model, replaced)


def lift_branch_weights(model: ir.Model) -> None:
    """Move initializers of branches and loops to the main graph.

    Does nothing where neither `SelectBranches` nor `UnrollLoops` would replace a node.
    """
    if any(_is_candidate(node, model) or rounds_of_layers(node, model) for node in model.graph):
        ir.passes.common.LiftSubgraphInitializersToMainGraphPass()(model)


def _is_candidate(node: ir.Node, model: ir.Model) -> bool:
    if node.op_type != "If" or node.domain != "" or _opset(model) < _FIRST_WITH_WHERE:
        return False
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    held = (inner for branch in branches for inner in branch.all_nodes())
    return any(map(product_rule, held)) and depends_on_data(node.inputs[0])


def _opset(model: ir.Model) -> int:
    return model.opset_imports.get("", 1)


def _replace(graph: ir.Graph, node: ir.Node, names: FreeNames) -> None:
    """Put the nodes of both branches and a Where per output in the place of the If."""
    nodes: list[ir.Node] = []
    results: list[list[ir.Value]] = []
    taken: set[str] = set()
    for key in ("then_branch", "else_branch"):
        branch = node.attributes[key].as_graph()
        results.append(list(branch.outputs))
        branch.outputs.clear()
        inner = list(branch)
        for value in list(branch.initializers.values()):
            branch.initializers.pop(value.name)
            if value.name in graph.initializers:
                value.name = names.free(value.name)
            graph.register_initializer(value)
        branch.remove(inner)
        for each in inner:
            if node_name(each) in taken:  # branches may name their nodes and values alike
                each.name = f"{node_name(each)}.{key}"
            for value in each.outputs:
                if value.name in taken:
                    value.name = names.free(value.name)
            taken.add(node_name(each))
            taken.update(value.name for value in each.outputs if value.name)
        nodes += inner
    for output, first, second in zip(node.outputs, *results, strict=True):
        where = ir.node("Where", [node.inputs[0], first, second], name=f"{node_name(node)}.select")
        where.outputs[0].shape, where.outputs[0].type = output.shape, output.type
        nodes.append(where)
    wheres = nodes[len(nodes) - len(node.outputs) :]
    replace_node(node, nodes, [where.outputs[0] for where in wheres])
