"""Replace one node by several: a function's call by its body, an If by one of its branches."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def replace_node(node: ir.Node, nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> None:
    """Insert `nodes` behind `node`, let readers of its outputs read `results`, and remove it.

    A result that one of `nodes` computes takes the name of the output that it replaces, so that
    readers find what they read under the same name. A loop over the graph's nodes that has reached
    `node` continues with `nodes`.
    """
    graph = node.graph
    inserted = list(nodes)
    graph.insert_after(node, inserted)
    computed = {value for each in inserted for value in each.outputs}
    last = inserted[-1] if inserted else node
    named: set[ir.Value] = set()
    for output, result in zip(node.outputs, results, strict=True):
        if result in computed and result not in named:
            result.name, output.name = output.name, f"{output.name}_replaced"
            if result.shape is None:
                result.shape = output.shape
            if result.type is None:
                result.type = output.type
        elif output.is_graph_output():
            # The graph's output keeps its name: here an Identity hands the result on.
            identity = ir.node("Identity", [result])
            identity.outputs[0].name, output.name = output.name, f"{output.name}_replaced"
            identity.outputs[0].shape, identity.outputs[0].type = output.shape, output.type
            graph.insert_after(last, identity)
            last, result = identity, identity.outputs[0]
        named.add(result)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
