"""Sparse tensors are read as the numbers that scipy makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.sparse
from onnx import TensorProto, helper, numpy_helper

from graphscale.core.dense_tensors import with_dense_tensors
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model, save_model

MATRIX = scipy.sparse.random(12, 7, density=0.2, random_state=0, format="coo", dtype=np.float32)


def sparse(values: np.ndarray, places: np.ndarray, shape: list[int], name: str = "w"):
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(places), shape
    )


def model(tensor: onnx.SparseTensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7])],
        sparse_initializer=[tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("coordinates", [True, False])
def test_places_as_coordinates_and_as_one_number(coordinates: bool) -> None:
    rows = np.stack([MATRIX.row, MATRIX.col], 1).astype(np.int64)
    places = rows if coordinates else rows @ np.int64([7, 1])
    proto = model(sparse(MATRIX.data, places, [12, 7]))
    dense = with_dense_tensors(proto, "m")
    assert len(proto.graph.sparse_initializer) == 1
    assert not dense.graph.sparse_initializer
    (weight,) = dense.graph.initializer
    assert weight.name == "w"
    np.testing.assert_array_equal(numpy_helper.to_array(weight), MATRIX.toarray())


def test_files_hold_dense_weights_afterwards(tmp_path) -> None:
    proto = model(sparse(MATRIX.data, (MATRIX.row * 7 + MATRIX.col).astype(np.int64), [12, 7]))
    onnx.save(proto, tmp_path / "a.onnx")
    save_model(load_model(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    written = onnx.load(tmp_path / "b.onnx")
    onnx.checker.check_model(written, full_check=True)
    np.testing.assert_array_equal(
        numpy_helper.to_array(written.graph.initializer[0]), MATRIX.toarray()
    )
    assert written.graph.node == proto.graph.node


def test_constant_nodes_in_branches() -> None:
    value = sparse(np.float32([5]), np.int64([1]), [3], "c")
    node = helper.make_node("Constant", [], ["c"], sparse_value=value)
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])
    branch = helper.make_graph([node], "branch", [], [output])
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    loaded = load_model(proto)
    for each in loaded.graph[0].attributes.values():
        (constant,) = each.as_graph()
        assert constant.attributes["value"].as_tensor().numpy().tolist() == [0, 5, 0]


def test_a_model_without_them_is_handed_on() -> None:
    proto = model(sparse(np.float32([1]), np.int64([0]), [12, 7]))
    dense = with_dense_tensors(proto, "m")
    assert with_dense_tensors(dense, "m") is dense


@pytest.mark.parametrize(
    ("values", "places", "shape", "message"),
    [
        ([1, 2], [0], [12, 7], "its places do not fit its numbers.*export the model again"),
        ([1], [84], [12, 7], "a number stands outside its shape"),
        ([1], [-1], [12, 7], "a number stands outside its shape"),
        ([1], [[0, 7]], [12, 7], "a number stands outside its shape"),
        ([1], [[0, 0, 0]], [12, 7], "its places do not fit"),
        ([1], [0], [-12, 7], r"its shape is \[-12, 7\]"),
        ([1], [0], [10**6, 10**6], "4e\\+12 bytes as a dense one; store it as a dense one"),
    ],
)
def test_damage_and_bombs_are_refused(values, places, shape, message) -> None:
    tensor = sparse(np.float32(values), np.int64(places), [12, 7])
    tensor.dims[:] = shape
    with pytest.raises(GraphScaleError, match=message):
        with_dense_tensors(model(tensor), "m")


def test_nothing_but_zeros() -> None:
    dense = with_dense_tensors(model(sparse(np.float32([]), np.int64([]), [12, 7])), "m")
    assert not numpy_helper.to_array(dense.graph.initializer[0]).any()
