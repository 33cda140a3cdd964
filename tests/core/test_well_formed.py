"""Faults of a model are reported when it is read; unsorted nodes are sorted."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model


def model(*nodes: onnx.NodeProto, output: str = "y") -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [600], np.ones(600, np.float32))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


RELU, NEG = helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])


def test_nodes_out_of_order_are_sorted() -> None:
    loaded = load_model(model(NEG, RELU))
    assert [node.op_type for node in loaded.graph] == ["Relu", "Neg"]
    onnx.checker.check_model(ir.to_proto(loaded))


@pytest.mark.parametrize(
    ("nodes", "value"),
    [
        ([NEG], "a"),
        ([RELU], "y"),
        ([helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"]), NEG], "b"),
    ],
    ids=["missing", "output", "circle"],
)
def test_a_value_that_nothing_computes_is_named(nodes, value) -> None:
    with pytest.raises(GraphScaleError, match=f"nothing computes the value '{value}'.*; export"):
        load_model(model(*nodes))
    loaded = ir.from_proto(model(*nodes))
    with pytest.raises(GraphScaleError, match=f"nothing computes the value '{value}'.*; export"):
        load_model(loaded)


def test_values_of_outer_graphs_are_known_in_branches() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["a"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    equal = helper.make_node("Greater", ["size", "size"], ["flag"])
    size = helper.make_node("Size", ["x"], ["size"])
    branch = helper.make_node("If", ["flag"], ["y"], **branches)
    assert len(load_model(model(RELU, size, equal, branch)).graph) == 4
    with pytest.raises(GraphScaleError, match="nothing computes the value 'a'"):
        load_model(model(size, equal, branch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.dims.__setitem__(0, -600), r"the shape \[-600\], which no tensor has"),
        (lambda w: w.dims.__setitem__(0, 601), "does not hold the values"),
        (lambda w: setattr(w, "data_type", 0), "has the type UNDEFINED"),
        (lambda w: w.ClearField("float_data"), "does not hold the values"),
        (lambda w: setattr(w, "data_type", TensorProto.STRING), "does not hold the values"),
    ],
    ids=["negative", "short", "untyped", "empty", "texts"],
)
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_tensors_whose_shape_does_not_fit_are_named(change, message, where) -> None:
    proto = model(RELU, NEG)
    if where == "constant":
        node = helper.make_node("Constant", [], ["c"], value=proto.graph.initializer[0])
        change(node.attribute[0].t)
        proto.graph.node.append(node)
    else:
        change(proto.graph.initializer[0])
    with pytest.raises(GraphScaleError, match=f"tensor 'w' .*{message}.*; export the model again"):
        load_model(proto)


def test_a_constant_of_an_unknown_type_is_named() -> None:
    proto = model(RELU, NEG)
    node = helper.make_node("Constant", [], ["c"], value=proto.graph.initializer[0])
    node.attribute[0].t.data_type = -1
    proto.graph.node.append(node)
    with pytest.raises(GraphScaleError, match="tensor 'w' has a type that ONNX does not have"):
        load_model(proto)


@pytest.mark.parametrize("known", [{}, {"type": 1, "ref_attr_name": "alpha"}])
def test_attributes_without_a_type_or_a_value_are_damage(known) -> None:
    proto = model(RELU, NEG)
    proto.graph.node[0].attribute.add(name="alpha", **known)
    with pytest.raises(GraphScaleError, match=r"is damaged .*export"):
        load_model(proto)


def test_text_that_is_not_utf8_is_damage_wherever_it_stands(tmp_path) -> None:
    proto = model(RELU, NEG)
    proto.graph.node[1].metadata_props.add(key="from", value="here?")
    damaged = proto.SerializeToString().replace(b"here?", b"her\xff!")
    (tmp_path / "m.onnx").write_bytes(damaged)
    with pytest.raises(GraphScaleError, match=r"m\.onnx: is damaged \(a value of .* is not UTF-8"):
        load_model(tmp_path / "m.onnx")


NO_SIZES = helper.make_node("Reshape", ["a"], ["y"], name="r")


@pytest.mark.parametrize("inside", ["graph", "branch", "function"])
def test_an_input_that_an_operator_must_have_is_named(inside, tmp_path) -> None:
    proto = model(RELU, NO_SIZES)
    if inside == "branch":
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        branch = helper.make_graph([NO_SIZES], "b", [], [out])
        choice = helper.make_node("If", ["f"], ["z"], then_branch=branch, else_branch=branch)
        proto = model(RELU, helper.make_node("IsNaN", ["a"], ["f"]), choice, output="z")
    elif inside == "function":
        proto = model(RELU, helper.make_node("Flat", ["a"], ["y"], domain="own"))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        proto.opset_import.append(opsets[1])
        proto.functions.append(
            helper.make_function("own", "Flat", ["a"], ["y"], [NO_SIZES], opsets[:1])
        )
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(GraphScaleError, match=r"m\.onnx: node 'r' .*lacks its input 'shape'; exp"):
        load_model(tmp_path / "m.onnx")
    with pytest.raises(GraphScaleError, match=r"in memory: node 'r' .*lacks its input 'shape'"):
        load_model(ir.from_proto(proto))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Relu", ["a"], ["y", "z"]), "has 2 outputs, more than its operator"),
        (helper.make_node("Relu", ["a"], ["y"], axis=1), "has the attribute 'axis', unlike its"),
        (helper.make_node("Elu", ["a"], ["y"], alpha=1), "has the attribute 'alpha' of the type I"),
        (helper.make_node("Cast", ["a"], ["y"]), "lacks its attribute 'to'"),
    ],
)
def test_what_an_operators_definition_forbids_is_named(node, said) -> None:
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model(RELU, node))
    with pytest.raises(GraphScaleError, match=f"node '{node.name}' .*{said}.*; export the model"):
        load_model(model(RELU, node))


def test_newer_operator_sets_than_onnx_knows_are_not_judged() -> None:
    proto = model(RELU, helper.make_node("Relu", ["a"], ["y"], new=1))
    proto.opset_import[0].version = 1000
    assert len(load_model(proto).graph) == 2


@pytest.mark.parametrize("op", ["Clip", "Own"])
def test_inputs_that_may_be_left_out_are_not_missed(op) -> None:
    """Clip takes its bounds or not; nothing is known of an operator that ONNX does not define."""
    proto = model(RELU, helper.make_node(op, ["a", "", ""], ["y"]))
    assert len(load_model(proto).graph) == 2


@pytest.mark.parametrize("version", [0, -1, 2**63 - 1])
def test_versions_of_operator_sets_that_cannot_exist(version: int) -> None:
    proto = model(RELU, NEG)
    proto.opset_import[0].version = version
    with pytest.raises(GraphScaleError, match=rf"version {version} .*ai\.onnx.*does not exist"):
        load_model(proto)
