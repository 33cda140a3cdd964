"""Shapes and known values are those of the tensors that onnxruntime computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.infer_shapes import ShapeInference, infer_shapes
from tests.passes.parsed_graphs import normal, read, run

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, H, W] x) => (float[A, B, C, D] y)'


def check(model: ir.Model, **feeds: np.ndarray) -> None:
    """Let onnxruntime compute every tensor and compare shapes and known values."""
    found = infer_shapes(model, {name: array.shape for name, array in feeds.items()})
    values = [value for node in model.graph for value in node.outputs]
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values)
    asked = onnx.shape_inference.infer_shapes(proto)
    types = {each.name: each for each in asked.graph.value_info}
    for index, value in enumerate(values):
        if value.name in types:
            proto.graph.output[index].CopyFrom(types[value.name])
    for value, array in zip(values, run(proto, **feeds), strict=True):
        assert found.shapes[value] == array.shape, value.name
        if value in found.constants:
            np.testing.assert_array_equal(found.constants[value], array)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Conv <strides = [2, 2], pads = [1, 0, 1, 0]> (x, k)",
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)",
        "y = AveragePool <kernel_shape = [2, 2], strides = [3, 3], ceil_mode = 1> (x)",
        """shape = Shape <start = 2> (x)
           twice = Mul(shape, two)
           sizes = Concat <axis = 0> (head, twice)
           y = Resize <mode = "nearest"> (x, , , sizes)""",
        """parts = SplitToSequence <axis = 1> (x, one)
           first = SequenceAt(parts, zero)
           y = ConcatFromSequence <axis = 2> (parts)""",
    ],
)
def test_operators(nodes):
    model = read(
        f"{HEAD} <int64[1] two = {{2}}, int64[2] head = {{2, 3}}, int64 one = {{1}},"
        f" int64 zero = {{0}}> {{ {nodes} }}",
        k=normal(4, 3, 3, 3),
    )
    if "Sequence" in nodes:
        shapes = infer_shapes(model, {"x": [2, 3, 9, 7]}).shapes
        assert shapes[model.graph[1].outputs[0]] == (2, 1, 9, 7)
        assert shapes[model.graph[2].outputs[0]] == (2, 1, 27, 7)
    else:
        check(model, x=normal(2, 3, 9, 7))


def test_nodes_may_be_visited_one_by_one():
    model = read(f"{HEAD} {{ a = Relu(x)  y = MaxPool <kernel_shape = [3, 3]> (a) }}")
    inference = ShapeInference(model, {"x": [1, 3, 9, 7]})
    inference.visit(model.graph[0])
    assert model.graph[1].outputs[0] not in inference.found.shapes
    inference.visit(model.graph[1])
    assert inference.found.shape(model.graph[1].outputs[0]) == (1, 3, 7, 5)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("y = NoSuchOperator(x)", r"has the operator ai\.onnx\.NoSuchOperator.*replace it"),
        ("y = NonZero(x)", "the shape of its output 'y' depends on the data.*leave this node out"),
        ("y = Concat <axis = 1> (x, k)", "does not fit the input size.*check the model"),
        ("y = Resize(x, , less)", r"Resize.* would have the shape \[1, 3, -9, 7\]; check"),
        ("r = Resize(x, , none)  y = Slice(r, a, b, a, b)", r"Slice.* \[1, 3, 0, 7\], which is e"),
        ("y = Conv(x, flat)", r"its weight of shape \[4, 3, 3\] does not fit its input.*check"),
    ],
)
def test_what_is_the_matter_is_said(nodes, message):
    text = f"{HEAD} {{ {nodes} }}"
    scales = {"less": np.float32([1, 1, -1, 1]), "none": np.float32([1, 1, 0, 1])}
    bounds = {"a": np.int64([2]), "b": np.int64([-1])}
    model = read(text, k=normal(4, 3, 3, 3), flat=normal(4, 3, 3), **scales, **bounds)
    with pytest.raises(GraphScaleError, match=message):
        infer_shapes(model, {"x": [1, 3, 9, 7]})


def test_an_if_that_the_data_decides_has_the_shape_of_both_branches():
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, bool flag) => (float[1, C, H, W] y) {
            y = If <
                then_branch = t () => (float[1, C, H, W] p) { a = Relu(x)  p = Conv(a, k) },
                else_branch = e () => (float[1, C, H, W] q) { q = MaxPool <KERNEL> (x) }
            > (flag)
        }
    """
    equal = read(text.replace("KERNEL", "kernel_shape = [3, 3]"), k=normal(3, 3, 3, 3))
    check(equal, x=normal(1, 3, 8, 8), flag=np.array(True))
    other = read(text.replace("KERNEL", "kernel_shape = [2, 2]"), k=normal(3, 3, 3, 3))
    with pytest.raises(GraphScaleError, match="the shape of its output 'y' depends on the data"):
        infer_shapes(other, {"x": [1, 3, 8, 8], "flag": []})


def test_large_values_are_not_kept():
    model = read(f"{HEAD} {{ y = Add(x, w) }}", w=normal(300, 300))
    found = infer_shapes(model, {"x": [1, 3, 300, 300]})
    assert model.graph.initializers["w"] not in found.constants


def test_a_chain_may_be_long():
    lines = " ".join(f"x{i + 1} = Relu(x{i})" for i in range(5000))
    model = read(f"{HEAD} {{ x0 = Neg(x) {lines} y = Neg(x5000) }}")
    found = infer_shapes(model, {"x": [1, 3, 2, 2]})
    assert found.shapes[model.graph.outputs[0]] == (1, 3, 2, 2)
