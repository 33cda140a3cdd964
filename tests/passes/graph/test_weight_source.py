"""The weight behind a value is found, and each of its dimensions is matched with the value's."""

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.weight_source import (
    dims_at_source,
    set_tensor,
    tensor_of,
    weight_source,
)
from tests.passes.parsed_graphs import normal, read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[M] y)'


def test_through_what_rearranges_and_no_further():
    model = read(
        f"""{HEAD} {{
            t = Transpose <perm = [1, 0]> (w)
            i = Identity(t)
            s = Mul(w, w)
            c = Constant <value = float[1] {{1.0}}> ()
            y = Relu(x)
        }}""",
        w=normal(2, 3),
    )
    outputs = {value.name: value for node in model.graph for value in node.outputs}
    weight = model.graph.initializers["w"]
    assert weight_source(weight) is weight
    assert weight_source(outputs["i"]) is weight
    assert weight_source(outputs["c"]) is outputs["c"]
    assert weight_source(outputs["s"]) is None
    assert weight_source(model.graph.inputs[0]) is None
    assert weight_source(None) is None


def test_tensors_are_read_and_replaced():
    model = read(
        f"{HEAD} {{ c = Constant <value = float[1] {{1.0}}> ()  y = Mul(c, w) }}", w=normal(2)
    )
    constant, weight = model.graph[0].outputs[0], model.graph.initializers["w"]
    for value in (constant, weight):
        set_tensor(value, ir.tensor(np.float32([4, 5, 6]), name=value.name))
        assert tensor_of(value).numpy().tolist() == [4, 5, 6]
        assert list(value.shape) == [3]


def test_dimensions_are_carried_back():
    model = read(
        f"""{HEAD} {{
            t = Transpose <perm = [3, 2, 0, 1]> (w)
            u = Unsqueeze(t, axes)
            y = Squeeze(u, axes)
        }}""",
        w=normal(2, 3, 4, 5),
        axes=np.int64([0]),
    )
    constants = {model.graph.initializers["axes"]: np.int64([0])}
    dims = [("c",), ("d",), ("a",), ("b",)]  # of y, whose order is that of perm
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([5, 4, 2, 3] if node.op_type != "Unsqueeze" else [1] * 5)
    found = dims_at_source(model.graph[0].outputs[0], dims, constants)
    assert found == (("a",), ("b",), ("d",), ("c",))
    found = dims_at_source(model.graph[2].outputs[0], dims, constants)
    assert found == (("a",), ("b",), ("d",), ("c",))
