"""graphscale.session: what it takes, and options that serve several sessions."""

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.signal
from onnx import TensorProto, helper, numpy_helper

import graphscale
from graphscale.core.runtime import element_type, refusals

WEIGHT = np.random.default_rng(0).normal(size=(1, 1, 5, 7)).astype("f4")
X = np.random.default_rng(1).normal(size=(1, 1, 20, 18)).astype("f4")


@pytest.fixture
def model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("FFTConv", ["x", "w"], ["y"], domain="graphscale")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("graphscale", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def computes(session: onnxruntime.InferenceSession) -> None:
    wanted = scipy.signal.correlate(X[0, 0], WEIGHT[0, 0], "valid")
    np.testing.assert_allclose(session.run(None, {"x": X})[0][0, 0], wanted, rtol=1e-4, atol=1e-4)


def test_takes_paths_bytes_and_messages(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    for form in (path, str(path), path.read_bytes(), model):
        computes(graphscale.session(form))


def test_options_serve_several_sessions(model):
    options = onnxruntime.SessionOptions()
    first, second = (graphscale.session(model, sess_options=options) for _ in range(2))
    computes(second)
    del second
    computes(first)


def test_a_library_registered_before_is_one_sentence(model):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(graphscale.get_library_path())
    with pytest.raises(graphscale.GraphScaleError, match="registered in the session options"):
        graphscale.session(model, sess_options=options)


@pytest.mark.parametrize("path", ["missing.onnx", ".", None, 3])
def test_what_is_no_file_is_one_sentence(path):
    with pytest.raises(graphscale.GraphScaleError, match="give the path of an ONNX file"):
        graphscale.session(path)


def test_what_onnxruntime_does_not_open_is_one_sentence(model, tmp_path):
    model.graph.node[0].op_type = "Unknown"
    with pytest.raises(graphscale.GraphScaleError, match=r"^the model in memory: onnxruntime does"):
        graphscale.session(model)
    path = str(tmp_path / "net.onnx")
    onnx.save(model, path)
    with pytest.raises(graphscale.GraphScaleError, match=r"Unknown.*; check the model$") as caught:
        graphscale.session(path)
    assert str(caught.value).startswith(path)


def test_refusals_name_the_subject_the_node_and_the_reason():
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="the_Reshape")],
        "reshaped",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    session = graphscale.session(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    feeds = {"x": np.zeros(4, np.float32), "shape": np.array([3])}
    with (
        pytest.raises(
            graphscale.GraphScaleError, match=r"net\.onnx: node 'the_Reshape': onnxruntime does"
        ),
        refusals("net.onnx"),
    ):
        session.run(None, feeds)
    with pytest.raises(ZeroDivisionError), refusals("net.onnx"):
        _ = 1 / 0


def test_types_by_onnxruntimes_names():
    named = {"float": "f4", "double": "f8", "float16": "f2", "uint8": "u1", "bool": "?"}
    for name, wanted in named.items():
        assert element_type(f"tensor({name})") == np.dtype(wanted)
    assert element_type("seq(tensor(float))") is None
