"""Runs of whole models: shapes and outputs against onnxruntime's, differences by hand."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from graphscale import GraphScaleError
from graphscale.acceleration.whole_model import (
    Original,
    open_model,
    relative_difference,
    shapes_of,
)

FLOAT = TensorProto.FLOAT
INFINITE = float("inf")


def model_of(nodes, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )
    opsets = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs, outputs, f"the_{op_type}", **attributes)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (np.array([3.0, 4.0]), np.array([3.0, 4.5]), 0.1),
        (np.array([0.0, 0.0]), np.array([0.0, 0.5]), 0.5),  # of a norm of zero: absolute
        (np.array([1.0, np.inf, np.nan]), np.array([1.5, 2.0, 3.0]), 0.5),  # of what was finite
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), INFINITE),
        (np.array([1.0, 2.0]), np.array([[1.0, 2.0]]), INFINITE),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 9]), 0.25),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), 0.5),
        (np.zeros(0, np.int64), np.zeros(0, np.int64), 0.0),
        ([np.array([3.0, 4.0]), np.array([2])], [np.array([3.0, 4.5]), np.array([2])], 0.1),
        ([np.array([1.0])], [], INFINITE),
        (None, None, 0.0),
        (None, np.array([1.0]), INFINITE),
    ],
)
def test_relative_difference(before, after, wanted):
    assert relative_difference(before, after) == pytest.approx(wanted)


def test_relative_difference_of_16_bit_floats_does_not_overflow():
    before = np.full(1000, 60000, np.float16)
    assert relative_difference(before, before / 2) == pytest.approx(0.5)


def test_shapes_are_those_of_the_run():
    """One of them depends on the data: the number of elements that are not zero."""
    model = model_of(
        [node("NonZero", ["x"], ["places"]), node("Transpose", ["x"], ["y"], perm=[1, 0])],
        [("x", FLOAT, ["n", 3])],
        [("y", FLOAT)],
    )
    x = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    values = [model.graph.inputs[0], *(each.outputs[0] for each in model.graph)]
    shapes = shapes_of(model, values, {"x": x})
    assert {value.name: shape for value, shape in shapes.items()} == {
        "x": (2, 3),
        "places": (2, np.count_nonzero(x)),
        "y": (3, 2),
    }
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert shapes_of(model, [], {}) == {}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.INT64, np.int64),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_synthetic_inputs_have_the_type_and_shape_of_the_models(kind, dtype):
    model = model_of([node("Identity", ["x"], ["y"])], [("x", kind, ["n", 3])], [("y", kind)])
    original = Original(model, {"x": (2, 3)}, "the model")
    assert original.feeds["x"].dtype == dtype
    assert original.feeds["x"].shape == (2, 3)
    np.testing.assert_array_equal(original.outputs[0], original.feeds["x"])


def test_inputs_that_no_memory_holds_are_named():
    model = model_of([node("Identity", ["x"], ["y"])], [("x", FLOAT, ["n", 3])], [("y", FLOAT)])
    with pytest.raises(GraphScaleError, match=r"input 'x' of shape \[4611686018427387904, 3\]"):
        _ = Original(model, {"x": (2**62, 3)}, "the model").feeds


def test_inputs_become_positive_where_outputs_are_not_finite_otherwise():
    model = model_of([node("Log", ["x"], ["y"])], [("x", FLOAT, [50])], [("y", FLOAT)])
    original = Original(model, {"x": (50,)}, "the model")
    assert (original.feeds["x"] >= 0).all()
    np.testing.assert_allclose(original.outputs[0], np.log(original.feeds["x"]), rtol=1e-5)


class Changed:
    """A session whose output is `factor` times that of the original."""

    def __init__(self, original, factor):
        self.original, self.factor = original, factor

    def run(self, names, feeds):
        return [self.factor * each for each in self.original.opened.run(names, feeds)]


def test_difference_of_a_changed_model():
    model = model_of([node("Exp", ["x"], ["y"])], [("x", FLOAT, [50])], [("y", FLOAT)])
    original = Original(model, {"x": (50,)}, "net.onnx")
    assert original.difference(original.opened, 1e-4) == 0
    assert original.difference(Changed(original, 1.25), 0.5) == pytest.approx(0.25)
    with pytest.raises(GraphScaleError, match=r"net\.onnx: output 'y' changes by 2\.5e-01"):
        original.difference(Changed(original, 1.25), 1e-4)


def test_open_model_without_optimizations_runs_the_same_model():
    model = model_of(
        [node("Identity", ["x"], ["z"]), node("Neg", ["z"], ["y"])],
        [("x", FLOAT, [2])],
        [("y", FLOAT)],
    )
    for optimized in (True, False):
        session = open_model(model, optimized)
        assert isinstance(session, onnxruntime.InferenceSession)
        (y,) = session.run(None, {"x": np.array([1, -2], np.float32)})
        assert y.tolist() == [-1, 2]
