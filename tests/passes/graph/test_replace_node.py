"""Nodes take the place of one node; the names of inputs and outputs stay."""

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.replace_node import replace_node
from tests.passes.parsed_graphs import operators, read, run

X = np.float32([-4, 9])


def test_what_reads_the_node_reads_the_results_under_its_name():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }""")
    absolute = ir.node("Abs", [model.graph.inputs[0]])
    root = ir.node("Sqrt", [absolute.outputs[0]])
    absolute.outputs[0].name, root.outputs[0].name = "absolute", "root"
    replace_node(model.graph[0], [absolute, root], [root.outputs[0]])
    assert operators(model) == ["Abs", "Sqrt", "Neg"]
    assert root.outputs[0].name == "a"
    assert run(model, x=X)[0].tolist() == [-2, -3]


def test_one_result_for_two_outputs_of_the_graph():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[2] y, float[2] z) { y, z = Split(x) }""")
    node = ir.node("Slice", [model.graph.inputs[0], *_ints(model, 0), *_ints(model, 2)])
    node.outputs[0].name = "cut"
    replace_node(model.graph[0], [node], [node.outputs[0]] * 2)
    assert operators(model) == ["Slice", "Identity"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    y, z = run(model, x=np.float32([1, 2, 3, 4]))
    assert y.tolist() == z.tolist() == [1, 2]


def test_a_walk_comes_to_the_new_nodes_next():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }""")
    seen = []
    for node in model.graph:
        seen.append(node.op_type)
        if node.op_type == "Relu":
            new = ir.node("Abs", [model.graph.inputs[0]])
            new.outputs[0].name = "b"
            replace_node(node, [new], [new.outputs[0]])
    assert seen == ["Relu", "Abs", "Neg"]


def _ints(model: ir.Model, number: int) -> list[ir.Value]:
    from graphscale.passes.graph.add_initializer import add_initializer

    return [add_initializer(model, "n", np.int64([number]))]
