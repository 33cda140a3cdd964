"""New names differ from all names of the model."""

from graphscale.passes.graph.free_names import FreeNames
from tests.passes.parsed_graphs import read


def test_taken_names_get_numbers():
    names = FreeNames(["w", "w.3", None, ""])
    assert [names.free(name) for name in ("w", "w", "v", "v", "w")] == [
        "w.2",
        "w.4",
        "v",
        "v.2",
        "w.5",
    ]


def test_names_of_inputs_weights_nodes_and_branches_are_taken():
    model = read("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool flag) => (float[2] y) <float[1] w = {1}> {
            a = Mul(x, w)
            y = If <
                then_branch = t () => (float[2] p) { p = Relu(a) },
                else_branch = e () => (float[2] q) <float[1] v = {1}> { q = Add(a, v) }
            > (flag)
        }
    """)
    names = FreeNames.for_values(model)
    assert {names.free(name) for name in ("x", "flag", "w", "a", "y", "p", "q", "v")} == {
        f"{name}.2" for name in ("x", "flag", "w", "a", "y", "p", "q", "v")
    }


def test_a_value_hands_its_name_over():
    model = read("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a_old = Relu(x)  a = Neg(a_old)  y = Abs(a) }""")
    value = model.graph[1].outputs[0]
    assert FreeNames.for_values(model).hand_over(value, "_old") == "a"
    assert value.name == "a_old.2"


def test_many_equal_wishes_take_linear_time():
    names = FreeNames([])
    assert len({names.free("t") for _ in range(200_000)}) == 200_000
