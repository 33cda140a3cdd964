"""Functions are replaced by their bodies, which compute the same in onnxruntime."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from graphscale.passes.normalize.inline_functions import InlineFunctions
from tests.passes.parsed_graphs import normal, operators, parse, read, run

HEAD = '<ir_version: 9, opset_import: ["" : 17, "my" : 1]> g (float[N, 3] x) => (float[N, 3] y)'


def check(model: onnx.ModelProto) -> None:
    x = normal(2, 3)
    inlined = load_model(model)
    assert InlineFunctions()(inlined).modified
    assert not inlined.functions
    assert not {node.domain for node in inlined.graph.all_nodes()} & {"my"}
    np.testing.assert_array_equal(run(inlined, x=x), run(model, x=x))


def test_attributes_defaults_and_inputs_left_out():
    check(
        parse(f"""{HEAD} {{
            a = my.Scale <alpha = 0.25> (x)
            b = my.Scale (a)
            y = my.Shift (b)
        }}
        <domain: "my", opset_import: ["" : 17]>
        Scale <alpha: float = 0.5> (v) => (r) {{ r = LeakyRelu <alpha: float = @alpha> (v) }}
        <domain: "my", opset_import: ["" : 17]>
        Shift (v, low) => (r) {{ r = Clip(v, low) }}
        """)
    )


def test_functions_in_functions_and_in_branches():
    check(
        parse(f"""{HEAD} <bool yes = {{1}}> {{
            a = my.Outer (x)
            y = If <
                then_branch = t () => (float[N, 3] p) {{ p = my.Inner (a) }},
                else_branch = e () => (float[N, 3] q) {{ q = Neg (a) }}
            > (yes)
        }}
        <domain: "my", opset_import: ["" : 17]>
        Inner (v) => (r) {{ t = Abs(v)  r = Sqrt(t) }}
        <domain: "my", opset_import: ["" : 17, "my" : 1]>
        Outer (v) => (r) {{ t = my.Inner (v)  u = my.Inner (t)  r = Neg(u) }}
        """)
    )


def test_a_branch_in_a_function_reads_the_functions_values():
    check(
        parse(f"""{HEAD} {{ a = my.Choose (x)  y = my.Choose (a) }}
        <domain: "my", opset_import: ["" : 17]>
        Choose (v) => (r) {{
            size = Size(v)
            is_six = Equal(size, size)
            n = Neg(v)
            r = If <
                then_branch = t () => (p) {{ p = Abs(n) }},
                else_branch = e () => (q) {{ q = Neg(n) }}
            > (is_six)
        }}
        """)
    )


def test_an_output_that_is_an_input_keeps_the_graphs_names():
    model = parse(f"""{HEAD} {{ y = my.Same (x) }}
        <domain: "my", opset_import: ["" : 17]> Same (v) => (v) {{ }}""")
    loaded = load_model(model)
    InlineFunctions()(loaded)
    assert operators(loaded) == ["Identity"]
    assert [value.name for value in loaded.graph.outputs] == ["y"]


def test_names_of_the_body_are_kept_where_they_are_free():
    model = read(f"""{HEAD} {{ a = my.F (x)  t = my.F (a)  y = Neg (t) }}
        <domain: "my", opset_import: ["" : 17]> F (v) => (r) {{ t = Abs(v)  r = Relu(t) }}""")
    result = InlineFunctions()(model)
    assert result.names == ["my.F"]
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert names[1] == "a"
    assert names[-2:] == ["t", "y"]


def test_our_own_operators_and_kept_ones_stay():
    text = f"""{HEAD.replace('"my" : 1', '"my" : 1, "graphscale" : 1')} {{
        a = my.F (x)
        y = graphscale.G (a)
    }}
    <domain: "my", opset_import: ["" : 17]> F (v) => (r) {{ r = Abs(v) }}
    <domain: "graphscale", opset_import: ["" : 17, "my" : 1]> G (v) => (r) {{ r = my.F (v) }}
    """
    model = read(text)
    assert InlineFunctions()(model).names == ["my.F"]
    assert operators(model) == ["Abs", "G"]
    (body,) = model.functions.values()
    assert [node.op_type for node in body] == ["Abs"]
    model = read(text)
    assert not InlineFunctions(keep={("my", "F")})(model).modified
    assert operators(model) == ["F", "G"]


def nested(depth: int, calls: int) -> onnx.ModelProto:
    """Functions that call the next one `calls` times, `depth` deep."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    model = parse(f"{HEAD} {{ y = my.F0 (x) }}")
    for i in range(depth):
        op, domain = (f"F{i + 1}", "my") if i < depth - 1 else ("Relu", "")
        names = ["v", *(f"t{j}" for j in range(calls - 1)), "r"]
        nodes = [
            helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(names)
        ]
        model.functions.append(helper.make_function("my", f"F{i}", ["v"], ["r"], nodes, opsets))
    return model


def test_nested_functions_take_linear_time():
    model = load_model(nested(13, 2))
    InlineFunctions()(model)
    assert operators(model) == ["Relu"] * 2**13


def test_a_chain_of_functions_may_be_deep():
    model = load_model(nested(3000, 1))
    InlineFunctions()(model)
    assert operators(model) == ["Relu"]


def test_functions_that_grow_out_of_proportion_are_refused():
    with pytest.raises(GraphScaleError, match=r"81 nodes become 1\.1e\+12; export it without"):
        InlineFunctions()(load_model(nested(40, 2)))


def test_functions_in_a_circle_are_refused():
    model = nested(3, 1)
    model.functions[2].node[0].domain, model.functions[2].node[0].op_type = "my", "F0"
    with pytest.raises(GraphScaleError, match=r"in a circle \(my\.F.*; export it again"):
        InlineFunctions()(load_model(model))


def test_another_opset_is_taken_where_the_operators_mean_the_same():
    model = parse(f"""{HEAD} {{ y = my.F (x) }}
        <domain: "my", opset_import: ["" : 16]> F (v) => (r) {{ r = Abs(v) }}""")
    check(model)
    node = helper.make_node("ReduceSum", ["v"], ["r"], axes=[1])
    model.functions[0].node[0].CopyFrom(node)
    model.functions[0].opset_import[0].version = 11
    with pytest.raises(GraphScaleError, match=r"my\.F uses ReduceSum of opset 11.*to one opset"):
        InlineFunctions()(load_model(model))
