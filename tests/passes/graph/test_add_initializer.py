"""Added initializers get free names, and the model an IR version that allows them."""

import numpy as np

from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.free_names import FreeNames
from tests.passes.parsed_graphs import normal, operators, read, run


def test_names_types_and_shapes():
    model = read("""<ir_version: 3, opset_import: ["" : 8]>
        g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }""")
    values = [add_initializer(model, "a", np.float32([1, 2]))]
    values.append(add_initializer(model, "a", np.int64(3), FreeNames.for_values(model)))
    assert [value.name for value in values] == ["a.2", "a.3"]
    assert [list(value.shape) for value in values] == [[2], []]
    assert model.ir_version == 4


def test_the_model_runs_with_it():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { y = Neg(x) }""")
    model.graph[0].replace_input_with(0, add_initializer(model, "x", np.float32([1, 2])))
    assert operators(model) == ["Neg"]
    assert run(model, x=normal(2))[0].tolist() == [-1, -2]
