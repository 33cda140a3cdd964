"""The library inside onnxruntime: errors, types, shapes, threads, memory."""

import resource
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as status

import graphscale
from graphscale import GraphScaleError

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def model(op_type, inputs, outputs, path, **attributes):
    """One node named the_node; inputs are (type, shape), outputs types."""
    node = helper.make_node(
        op_type,
        [f"i{i}" for i in range(len(inputs))],
        [f"o{i}" for i in range(len(outputs))],
        name="the_node",
        domain="graphscale",
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(f"i{i}", *value) for i, value in enumerate(inputs)],
        [helper.make_tensor_value_info(f"o{i}", kind, None) for i, kind in enumerate(outputs)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("graphscale", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path


def open_session(path, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return graphscale.session(path, sess_options=options, providers=["CPUExecutionProvider"])


def test_a_shape_error_names_the_node(tmp_path):
    inputs = [(FLOAT, ["n", "t", "c"]), (FLOAT, ["o", "k", "d"])]
    session = open_session(model("TemporalConv", inputs, [FLOAT], tmp_path / "m.onnx"))
    x, weight = np.zeros((1, 9, 3), np.float32), np.zeros((2, 2, 4), np.float32)
    with pytest.raises(
        status.InvalidArgument, match=r"TemporalConv node.*'the_node'.*features of x"
    ):
        session.run(None, {"i0": x, "i1": weight})
    weight = np.zeros((2, 10, 3), np.float32)
    with pytest.raises(
        status.InvalidArgument, match="x has 9 frames; the kernel needs at least 10"
    ):
        session.run(None, {"i0": x, "i1": weight})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "attribute 'width' is missing; give an integer"),
        ({"width": 2.5}, "attribute 'width' is a float; it must be an integer"),
        ({"width": "two"}, "attribute 'width' is a string; it must be an integer"),
        ({"width": [2]}, "attribute 'width' is a list of integers; it must be an integer"),
        ({"width": 2, "power": 3}, "attribute 'power' is an integer; it must be a float"),
    ],
)
def test_an_attribute_error_names_the_node(tmp_path, attributes, message):
    inputs = [(FLOAT, [2, 8])]
    path = model("FeatureLPPooling", inputs, [FLOAT], tmp_path / "m.onnx", **attributes)
    with pytest.raises(Exception, match=f"FeatureLPPooling node 'the_node': {message}"):
        open_session(path)


def test_an_impossible_attribute_is_an_error(tmp_path):
    path = model("FeatureLPPooling", [(FLOAT, [2, 8])], [FLOAT], tmp_path / "m.onnx", width=9)
    session = open_session(path)
    with pytest.raises(status.InvalidArgument, match=r"'the_node'.*fewer than the width 9"):
        session.run(None, {"i0": np.zeros((2, 8), np.float32)})


def test_wrong_types_do_not_load(tmp_path):
    inputs = [(FLOAT, [1, 9, 3]), (DOUBLE, [2, 2, 3])]
    with pytest.raises(GraphScaleError, match=r"m\.onnx.*: onnxruntime does not run it"):
        open_session(model("TemporalConv", inputs, [FLOAT], tmp_path / "m.onnx"))
    with pytest.raises(GraphScaleError, match=r"m\.onnx.*: onnxruntime does not run it"):
        open_session(model("Maxout", [(INT64, [2, 8])], [INT64, INT64], tmp_path / "m.onnx"))


@pytest.mark.parametrize("index", [-1, 4, 2**62, -(2**63)])
def test_a_wrong_index_is_an_error(tmp_path, index):
    inputs = [(FLOAT, [4, 3]), (INT64, ["n"])]
    session = open_session(model("LookupTable", inputs, [FLOAT], tmp_path / "m.onnx"))
    weight = np.ones((4, 3), np.float32)
    with pytest.raises(status.InvalidArgument, match=f"'the_node'.*index {index} at position 1"):
        session.run(None, {"i0": weight, "i1": np.array([0, index])})


def test_shape_inference(tmp_path):
    inputs = [(FLOAT, ["n", 8, "h", 16]), (FLOAT, [6, 8, 3, 3])]
    path = model("FFTConv", inputs, [FLOAT], tmp_path / "m.onnx", strides=[2, 2], pads=[1, 1, 1, 1])
    shape = open_session(path).get_outputs()[0].shape
    assert shape[:2] == ["n", 6]
    assert isinstance(shape[2], str)
    assert shape[3] == 8
    inputs = [(DOUBLE, ["n", 9, 4])]
    path = model("TemporalKMaxPool", inputs, [DOUBLE, INT64], tmp_path / "m.onnx", k=2)
    assert [o.shape for o in open_session(path).get_outputs()] == [["n", 2, 4]] * 2


@pytest.mark.parametrize("index_wanted", [False, True])
def test_a_node_may_lack_an_optional_output(tmp_path, index_wanted):
    """onnxruntime before 1.28 aborts where shape inference touches an output that is not there."""
    outputs = [FLOAT, INT64] if index_wanted else [FLOAT]
    path = model("Maxout", [(FLOAT, [2, 6])], outputs, tmp_path / "m.onnx", width=3, stride=3)
    x = np.array([[1, 5, 2, 0, -1, 0], [7, 8, 9, 3, 3, 1]], np.float32)
    got = open_session(path).run(None, {"i0": x})
    np.testing.assert_array_equal(got[0], [[5, 0], [9, 3]])
    if index_wanted:
        np.testing.assert_array_equal(got[1], [[1, 3], [2, 3]])


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [(3, 0), (0, 3), (0, 0)])
def test_a_kernel_without_taps_is_an_error(tmp_path, auto_pad, kernel):
    inputs = [(FLOAT, [1, 1, 5, 5]), (FLOAT, [2, 1, *kernel])]
    path = model("FFTConv", inputs, [FLOAT], tmp_path / "m.onnx", auto_pad=auto_pad)
    session = open_session(path)
    x, weight = np.zeros((1, 1, 5, 5), np.float32), np.zeros((2, 1, *kernel), np.float32)
    with pytest.raises(Exception, match=f"no taps along spatial dimension {kernel.index(0)}"):
        session.run(None, {"i0": x, "i1": weight})


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(tmp_path, kind):
    types = {torch.float16: 10, torch.bfloat16: 16, torch.float64: 11}
    inputs = [(types[kind], [2, 9, 5]), (types[kind], [4, 3, 5])]
    session = open_session(model("TemporalConv", inputs, [types[kind]], tmp_path / "m.onnx"))
    tensors = [torch.randn(2, 9, 5), torch.randn(4, 3, 5)]
    values = {
        f"i{i}": onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            tensor.to(kind).view(torch.uint16 if kind.itemsize == 2 else kind).numpy(), types[kind]
        )
        for i, tensor in enumerate(tensors)
    }
    result = session.run_with_ort_values(None, values)[0]
    got = torch.from_dlpack(result._ortvalue.to_dlpack())  # numpy has no bfloat16
    wanted = graphscale.layers.temporal_conv.temporal_conv(*(t.to(kind) for t in tensors))
    assert got.dtype == kind
    torch.testing.assert_close(got, wanted)


def test_empty_batch(tmp_path):
    inputs = [(FLOAT, ["n", 3, 5, 5]), (FLOAT, [2, 3, 3, 3])]
    session = open_session(model("FFTConv", inputs, [FLOAT], tmp_path / "m.onnx"))
    feed = {"i0": np.zeros((0, 3, 5, 5), np.float32), "i1": np.zeros((2, 3, 3, 3), np.float32)}
    assert session.run(None, feed)[0].shape == (0, 2, 3, 3)


def test_concurrent_runs_of_one_session_agree(tmp_path):
    inputs = [(FLOAT, ["n", 4, 20, 20]), (FLOAT, [8, 4, 5, 5])]
    session = open_session(model("FFTConv", inputs, [FLOAT], tmp_path / "m.onnx"), threads=3)
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((8, 4, 5, 5), np.float32)
    images = [generator.standard_normal((n + 1, 4, 20, 20), np.float32) for n in range(4)]
    wanted = [session.run(None, {"i0": image, "i1": weight})[0] for image in images]
    wrong = []

    def work(i):
        for _ in range(20):
            got = session.run(None, {"i0": images[i], "i1": weight})[0]
            if not np.allclose(got, wanted[i], rtol=1e-4, atol=1e-4):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "algorithm", ["auto", "direct", "dense 32x32", "per_channel 40x24", "dense 9x7"]
)
@pytest.mark.parametrize("sizes", [["h", "w"], [21, 17]])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_constant_weights_serve_every_size_of_image(tmp_path, algorithm, sizes, kind):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((24, 3, 7, 5)).astype(kind)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = model(
        "FFTConv",
        [(element, ["n", 6, *sizes]), (element, weight.shape)],
        [element],
        tmp_path / "m.onnx",
        group=2,
        pads=[3, 0, 3, 1],
        dilations=[1, 2],
        algorithm=algorithm,
    )
    made = onnx.load(path)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weight, "i1"))
    del made.graph.input[1]
    session = open_session(made.SerializeToString(), threads=2)
    tolerance = 1e-5 if kind == np.float32 else 1e-2
    for size in [(21, 17)] if sizes == [21, 17] else [(21, 17), (60, 9), (1, 130)]:
        x = generator.standard_normal((2, 6, *size)).astype(kind)
        wanted = torch.nn.functional.conv2d(
            torch.nn.functional.pad(torch.from_numpy(x).double(), (0, 1, 3, 3)),
            torch.from_numpy(weight).double(),
            dilation=(1, 2),
            groups=2,
        )
        (found,) = session.run(None, {"i0": x})
        error = torch.from_numpy(found).double() - wanted
        assert error.norm() <= tolerance * wanted.norm()


def test_scratch_memory_is_given_back(tmp_path):
    inputs = [(FLOAT, [4, 8, 32, 32]), (FLOAT, [8, 8, 3, 3])]
    session = open_session(model("FFTConv", inputs, [FLOAT], tmp_path / "m.onnx"))
    feed = {"i0": np.ones((4, 8, 32, 32), np.float32), "i1": np.ones((8, 8, 3, 3), np.float32)}
    for _ in range(20):
        session.run(None, feed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        session.run(None, feed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_session_of_a_missing_file():
    with pytest.raises(graphscale.GraphScaleError, match=r"nowhere\.onnx is not a file"):
        graphscale.session("nowhere.onnx")
