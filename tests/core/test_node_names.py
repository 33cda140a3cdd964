"""Unnamed nodes have names while graphscale works, and none in what it writes."""

import onnx
import onnx_ir as ir

from graphscale.core.model_files import load_model
from graphscale.core.node_names import (
    forget_given_names,
    name_nodes,
    node_name,
    without_given_names,
)
from graphscale.core.skeleton import restore, strip


def model() -> ir.Model:
    return load_model(
        onnx.parser.parse_model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[2] x, bool flag) => (float[2] y) {
                [first] a = Relu(x)
                y = If <
                    then_branch = t () => (float[2] p) { p = Relu(a) },
                    else_branch = e () => (float[2] q) { [q_node] q = Neg(a) }
                > (flag)
            }
        """)
    )


def names(read: ir.Model) -> list[str]:
    return [node.name or "" for node in read.graph.all_nodes()]


def test_named_after_the_first_output_and_forgotten():
    read = model()
    before = names(read)
    assert [node_name(node) for node in read.graph] == ["first", "y"]
    assert sorted(name_nodes(read)) == ["p", "y"]
    assert sorted(names(read)) == ["first", "p", "q_node", "y"]
    assert name_nodes(read) == []
    forget_given_names(read)
    assert names(read) == before


def test_copies_know_which_names_were_given():
    read = model()
    before = names(read)
    name_nodes(read)
    copy = read.clone()
    forget_given_names(copy)
    assert names(copy) == before


def test_a_name_that_somebody_else_gave_meanwhile_stays():
    read = model()
    name_nodes(read)
    read.graph[1].name = "chosen"
    forget_given_names(read)
    assert read.graph[1].name == "chosen"


def test_plans_carry_the_nodes_as_they_were():
    read = model()
    before = names(read)
    name_nodes(read)
    named = names(read)
    assert names(restore(strip(read))) == before
    assert names(read) == named
    with without_given_names(read):
        assert names(read) == before
    assert names(read) == named
