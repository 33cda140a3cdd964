"""Ifs that shapes decide are replaced by the branch that onnxruntime takes; others stay."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from graphscale.core.model_files import load_model
from graphscale.passes.normalize.resolve_static_ifs import ResolveStaticIfs
from tests.passes.parsed_graphs import normal, operators, read, run

# A Squeeze behind a test of the last size, as torch's older exporter writes x.squeeze(-1).
SQUEEZE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, W] x) => (float[N, 3, M] y)
<int64 last = {-1}, int64 one = {1}, int64[1] axes = {-1}>
{
    shape = Shape(x)
    size = Gather <axis = 0> (shape, last)
    is_one = Equal(size, one)
    chosen = If <
        then_branch = then_graph () => (float[N, 3] squeezed) { squeezed = Squeeze(x, axes) },
        else_branch = else_graph () => (float[N, 3, W] kept) { kept = Identity(x) }
    > (is_one)
    y = Relu(chosen)
}
"""


def test_the_taken_branch_stands_in_the_ifs_place():
    model = read(SQUEEZE)
    x = normal(2, 3, 4)
    expected = run(model, x=x)
    result = ResolveStaticIfs({"x": [2, 3, 4]})(model)
    assert result.modified
    assert result.names == ["chosen"]
    assert operators(model) == ["Shape", "Gather", "Equal", "Identity", "Relu"]
    assert model.graph[3].outputs[0].name == "chosen"
    np.testing.assert_array_equal(run(model, x=x), expected)


def test_without_ifs_nothing_changes():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x) => (float[N] y) { y = Relu(x) }""")
    result = ResolveStaticIfs({"x": [2]})(model)
    assert not result.modified
    assert result.names == []


def test_an_if_that_depends_on_the_data_stays():
    model = read("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[3] x, bool flag) => (float[3] y)
        {
            y = If <
                then_branch = a () => (float[3] p) { p = Relu(x) },
                else_branch = b () => (float[3] q) { q = Neg(x) }
            > (flag)
        }
    """)
    result = ResolveStaticIfs({"x": [3], "flag": []})(model)
    assert not result.modified
    assert operators(model) == ["If"]


@pytest.mark.parametrize("size", [1, 2])
def test_ifs_in_branches_and_their_equal_names(size):
    """An If in a taken branch is resolved, too; branches may name their weights alike."""
    inner = """
        If <
            then_branch = c{0} () => (float[N, W] p) <float[1] w = {{2}}> {{ p = Mul(x, w) }},
            else_branch = d{0} () => (float[N, W] q) <float[1] w = {{3}}> {{ q = Mul(x, w) }}
        > (is_one)
    """
    model = read(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, W] x) => (float[N, W] y)
        <int64 place = {{1}}, int64 one = {{1}}>
        {{
            shape = Shape(x)
            size = Gather <axis = 0> (shape, place)
            is_one = Equal(size, one)
            first = If <
                then_branch = a () => (float[N, W] r) {{ r = {inner.format(1)} }},
                else_branch = b () => (float[N, W] s) {{ s = {inner.format(2)} }}
            > (is_one)
            second = {inner.format(3)}
            y = Add(first, second)
        }}
    """)
    x = normal(2, size)
    result = ResolveStaticIfs({"x": [2, size]})(model)
    assert "If" not in operators(model)
    assert len(result.names) == 3
    np.testing.assert_allclose(run(model, x=x)[0], x * (4 if size == 1 else 6), rtol=1e-6)


def test_a_branch_that_hands_on_an_outer_value_keeps_the_outputs_name():
    model = read("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y)
        <bool yes = {1}>
        {
            r = Relu(x)
            y = If <
                then_branch = a () => (float[2] p) { p = Identity(r) },
                else_branch = b () => (float[2] q) { q = Neg(r) }
            > (yes)
        }
    """)
    branch = model.graph[1].attributes["then_branch"].as_graph()
    branch.outputs[0] = model.graph[0].outputs[0]
    branch.remove(list(branch))
    ResolveStaticIfs({"x": [2]})(model)
    assert operators(model) == ["Relu", "Identity"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    np.testing.assert_array_equal(run(model, x=np.float32([-1, 1]))[0], [0, 1])


def test_many_ifs_take_linear_time():
    """2,000 Ifs, each of which needs the shape that the one before gives: one walk."""
    float_ = TensorProto.FLOAT
    nodes = [helper.make_node("Shape", ["x0"], ["s"]), helper.make_node("Equal", ["s", "s"], ["c"])]
    for i in range(2000):
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node(op, [f"x{i}"], [f"{name}{i}"])],
                name,
                [],
                [helper.make_tensor_value_info(f"{name}{i}", float_, [2])],
            )
            for name, op in (("then", "Relu"), ("else", "Neg"))
        }
        nodes.append(helper.make_node("If", ["c"], [f"x{i + 1}"], **branches))
    x, y = (helper.make_tensor_value_info(n, float_, [2]) for n in ("x0", "x2000"))
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    model = load_model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert len(ResolveStaticIfs({"x0": [2]})(model).names) == 2000
    assert set(operators(model)[2:]) == {"Relu"}
