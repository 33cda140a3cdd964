"""Put the taken branch in the place of each If whose condition shapes alone decide.

The older torch exporter writes such an If where a Squeeze may or may not be needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphscale.passes.graph.infer_shapes import infer_shapes


def decide_branches(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Decide the Ifs of `model` in place at these input shapes; returns their nodes' names.

    An If that depends on the data stays.
    """
    decided = []
    for node in list(model.graph):
        if node.op_type != "If" or node.domain != "":
            continue
        condition = infer_shapes(model, input_shapes, until=node).constants.get(node.inputs[0])
        if condition is not None:
            decided.append(node.name or node.outputs[0].name)
            _inline(model.graph, node, bool(condition.reshape(-1)[0]))
    return decided


def _inline(graph: ir.Graph, node: ir.Node, taken: bool) -> None:
    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
    results = list(branch.outputs)
    inner = list(branch)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name)
        graph.register_initializer(value)
    branch.remove(inner)
    graph.insert_before(node, inner)
    for output, result in zip(node.outputs, results, strict=True):
        if result.producer() in inner:
            # What reads the If's output goes on reading it under the same name.
            result.name, output.name = output.name, f"{output.name}_undecided"
        output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
