"""The inputs that callers feed are those without an initializer."""

from graphscale.passes.graph.graph_inputs import graph_inputs
from tests.passes.parsed_graphs import normal, read


def test_inputs_that_a_weight_fills_are_left_out():
    model = read(
        """<ir_version: 3, opset_import: ["" : 8]>
        g (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }""",
        w=normal(2),
    )
    assert [value.name for value in graph_inputs(model)] == ["x"]
