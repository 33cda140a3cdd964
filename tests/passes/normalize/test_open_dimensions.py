"""Sizes below 0 become symbolic; an input with a size of 0 is refused."""

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from graphscale.passes.normalize.open_dimensions import OpenDimensions


def model(x: list, y: list) -> ir.Model:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_a_batch_of_minus_one_is_symbolic():
    read = model([-1, 3, 8, 8], [-1, 3, "H", 8])
    result = OpenDimensions()(read)
    assert result.names == ["x", "y"]
    for value in (*read.graph.inputs, *read.graph.outputs):
        assert isinstance(value.shape[0], ir.SymbolicDim)
        assert value.shape[1] == 3
    assert str(read.graph.outputs[0].shape[2]) == "H"


def test_numbers_and_names_stay():
    read = model(["N", None, 8], ["N", None, 8])
    assert not OpenDimensions()(read).modified


@pytest.mark.parametrize("shape", [[0, 3, 8, 8], [1, 3, 0, 8]])
def test_an_input_of_size_0_is_refused(shape):
    place = shape.index(0)
    with pytest.raises(GraphScaleError, match=f"input 'x' has a size of 0 at place {place}.*; exp"):
        OpenDimensions()(model(shape, ["N", 3, 8, 8]))
