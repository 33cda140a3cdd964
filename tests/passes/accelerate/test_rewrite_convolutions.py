"""Conv becomes FFTConv and back, with the same outputs in onnxruntime."""

import numpy as np
import onnx_ir as ir

import graphscale
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.rewrite_convolutions import RewriteConvolutions, algorithm_of
from tests.passes.parsed_graphs import normal, operators, read

TEXT = """
<ir_version: 3, opset_import: ["" : 17]>
g (float[1, 2, 9, 9] x, float[4, 2, 5, 5] k) => (float[1, 4, 5, 5] y)
{ a = Conv(x, k)  y = Relu(a) }
"""


def run(model: ir.Model) -> np.ndarray:
    session = graphscale.session(ir.to_proto(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": normal(1, 2, 9, 9)})[0]


def test_there_and_back():
    model = read(TEXT, k=normal(4, 2, 5, 5, seed=1))
    expected = run(model)
    (node,) = find_convolutions(model)
    result = RewriteConvolutions({node: "direct"})(model)
    assert result.modified
    assert operators(model) == ["FFTConv"]
    assert algorithm_of(node) == "direct"
    assert model.ir_version == 8
    # Callers may not feed the weight now, as they could not where initializers had to be inputs.
    assert [value.name for value in model.graph.inputs] == ["x"]
    np.testing.assert_allclose(run(model), expected, atol=1e-5)
    RewriteConvolutions({node: None})(model)
    assert operators(model) == ["Conv", "Relu"]
    assert algorithm_of(node) is None
    np.testing.assert_array_equal(run(model), expected)


def test_auto_is_no_attribute():
    model = read(TEXT, k=normal(4, 2, 5, 5, seed=1))
    (node,) = find_convolutions(model)
    RewriteConvolutions({node: "auto"})(model)
    assert "algorithm" not in node.attributes
    assert algorithm_of(node) == "auto"


def test_without_choices_nothing_changes():
    model = read(TEXT, k=normal(4, 2, 5, 5, seed=1))
    assert not RewriteConvolutions({})(model).modified
    assert model.ir_version == 3
