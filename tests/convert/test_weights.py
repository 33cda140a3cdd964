"""Which constants are trained, on graphs of a few nodes."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from graphscale import GraphScaleError
from graphscale.convert.weights import Weights, constant_tensor, find_weights


def find(nodes: str, names: set[str] | None = None, **constants: object) -> Weights:
    """The weights of `y = nodes(x)`; constants are arrays, or shapes of random ones."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[2,4,8,8] x) => (float y) {{ {nodes} }}'
    )
    for name, value in constants.items():
        if isinstance(value, tuple):
            value = np.random.default_rng(0).standard_normal(value, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    graph = ir.from_proto(model).graph
    every = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    return find_weights(graph, "file.onnx", every if names is None else names)


def named(values: dict) -> list[str]:
    return [value.name for value in values]


def test_kernels_biases_and_running_statistics() -> None:
    nodes = "c = Conv (x, w, b) y = BatchNormalization (c, s, t, mean, var)"
    found = find(nodes, w=(4, 4, 3, 3), b=(4,), s=(4,), t=(4,), mean=(4,), var=(4,))
    assert named(found.parameters) == ["w", "b", "s", "t"]
    assert named(found.statistics) == ["mean", "var"]
    assert next(iter(found.parameters.values())).shape == (4, 4, 3, 3)


@pytest.mark.parametrize(
    ("nodes", "trained"),
    [
        ("a = Add (x, t) y = Conv (a, w)", ["w"]),  # before the first layer: a mean of images
        ("c = Conv (x, w) y = Add (c, t)", ["w", "t"]),
        ("c = Conv (x, w) y = Mul (t, c)", ["w", "t"]),
        ("c = Conv (x, w) y = Sub (c, t)", ["w"]),
        ("c = Conv (x, w) y = Add (c, one)", ["w", "one"]),  # a bias of one channel
        ("c = Conv (x, w) r = Relu (c) y = Add (r, one)", ["w"]),  # the 3 of a hard sigmoid
        ("c = Conv (x, w) y = Mul (c, one)", ["w"]),
        ("c = Conv (x, w) y = Add (c, scalar)", ["w"]),
        ("c = Conv (x, w) y = Clip (c, scalar)", ["w"]),
        ("t2 = Add (t, t) c = Conv (x, w) y = Add (c, t2)", ["w", "t"]),  # computed beforehand
    ],
)
def test_operands(nodes: str, trained: list[str]) -> None:
    constants = {"w": (4, 4, 1, 1), "t": (4, 1, 1), "one": (1,), "scalar": np.float32(3)}
    assert named(find(nodes, **constants).parameters) == trained


@pytest.mark.parametrize("value", [np.int64([2]), np.float32([0.5])])
def test_single_numbers_on_the_way_to_a_weight_stay_constants(value: np.ndarray) -> None:
    """The exponent in w², or the gain of an equalised rate, is no weight."""
    nodes = "k = Pow (w, p) y = Conv (x, k)"
    assert named(find(nodes, w=(4, 4, 1, 1), p=value).parameters) == ["w"]


def test_a_weight_behind_nodes_that_arrange_it() -> None:
    nodes = "t = Transpose <perm=[1,0,2,3]> (w) i = Identity (t) y = Conv (x, i)"
    (value,) = find(nodes, w=(4, 4, 1, 1)).parameters
    assert value.name == "w"


def test_constants_of_inlined_functions_are_not_trained() -> None:
    assert named(find("y = Conv (x, w)", names={"y"}, w=(4, 4, 1, 1)).parameters) == []


def test_integers_are_never_trained() -> None:
    assert find("y = Gather <axis=1> (x, i)", i=np.int64([1, 2])) == Weights()


def test_one_tensor_cannot_be_both() -> None:
    nodes = "y = BatchNormalization (x, s, m, m, v)"
    with pytest.raises(GraphScaleError, match=r"file\.onnx.*'m'"):
        find(nodes, s=(4,), m=(4,), v=(4,))


def test_constants_of_every_kind() -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float y) <int64[2] shape = {2, 3}> {
            filled = ConstantOfShape <value = float[1] {1.5}> (shape)
            zeros = ConstantOfShape (shape)
            number = Constant <value_float = 3.0> ()
            other = Relu (x)
            dynamic = Shape (x)
            unknown = ConstantOfShape (dynamic)
            y = Add (x, number)
        }
    """)
    held = helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(np.ones(2)))
    model.graph.node.insert(0, held)
    graph = ir.from_proto(model).graph
    values = {value.name: value for node in graph for value in node.outputs}
    assert constant_tensor(values["held"]).numpy().tolist() == [1, 1]
    assert constant_tensor(values["filled"]).numpy().tolist() == [[1.5] * 3] * 2
    zeros = constant_tensor(values["zeros"])
    assert (zeros.dtype, zeros.numpy().tolist()) == (ir.DataType.FLOAT, [[0.0] * 3] * 2)
    for name in ("number", "other", "unknown"):
        assert constant_tensor(values[name]) is None
    assert constant_tensor(graph.initializers["shape"]).numpy().tolist() == [2, 3]
