"""Convolutions are found with all that their speed depends on."""

import numpy as np
import pytest

from graphscale.passes.accelerate.find_convolutions import (
    ConvolutionProblem,
    find_convolutions,
    find_hidden_convolutions,
    problem_of,
    unsuitable,
)
from graphscale.passes.graph.infer_shapes import infer_shapes
from tests.passes.parsed_graphs import normal, read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, H, W] x) => (float[N, C, P, Q] y)'


def shapes(model):
    return infer_shapes(model, {"x": [1, 2, 9, 9]}).shapes


def test_the_problem_has_the_nodes_attributes():
    model = read(
        f"""{HEAD} {{
            a = Relu(x)
            y = Conv <pads = [1, 2, 1, 2], strides = [2, 1], group = 2> (a, k, b)
        }}""",
        k=normal(4, 1, 3, 3),
        b=normal(4),
    )
    (node,) = find_convolutions(model)
    assert problem_of(node, shapes(model)) == ConvolutionProblem(
        x=(1, 2, 9, 9),
        weight=(4, 1, 3, 3),
        strides=(2, 1),
        dilations=(1, 1),
        pads=(1, 2, 1, 2),
        group=2,
        bias=True,
    )


def test_auto_pad_stands_in_the_place_of_pads():
    model = read(
        f"{HEAD} {{ y = Conv <auto_pad = 'SAME_UPPER'> (x, k) }}".replace("'", '"'),
        k=normal(4, 2, 3, 3),
    )
    problem = problem_of(find_convolutions(model)[0], shapes(model))
    assert problem.attributes["auto_pad"] == "SAME_UPPER"
    assert "pads" not in problem.attributes
    assert problem.key != ConvolutionProblem(**{**vars(problem), "auto_pad": "NOTSET"}).key


def test_those_inside_branches_are_listed_with_their_node():
    model = read(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 2, 9, 9] x, bool flag) => (float[1, 2, 9, 9] y) {
            y = If <
                then_branch = t () => (float[1, 2, 9, 9] p) { p = Conv(x, k) },
                else_branch = e () => (float[1, 2, 9, 9] q) { q = Neg(x) }
            > (flag)
        }
        """,
        k=normal(2, 2, 1, 1),
    )
    assert find_convolutions(model) == []
    ((node, outer),) = find_hidden_convolutions(model)
    assert (node.op_type, outer.op_type) == ("Conv", "If")


@pytest.mark.parametrize(
    ("body", "weight", "reason"),
    [
        ("k = Relu(v)  y = Conv(x, k)", {"v": normal(4, 2, 3, 3)}, "computed while the network"),
        ("y = Conv(x, k)", {"k": normal(4, 2, 1, 1)}, "one tap"),
        ("y = Conv(x, k)", {"k": normal(4, 2, 3, 3)}, None),
    ],
)
def test_why_there_is_nothing_to_choose(body, weight, reason):
    model = read(f"{HEAD} {{ {body} }}", **weight)
    found = unsuitable(find_convolutions(model)[0], shapes(model), model.ir_version)
    assert found is None if reason is None else reason in found


def test_other_types_are_left():
    model = read(
        f"{HEAD.replace('float[', 'double[')} {{ y = Conv(x, k) }}",
        k=normal(4, 2, 3, 3).astype(np.float64),
    )
    (node,) = find_convolutions(model)
    assert "DOUBLE, not FLOAT" in unsuitable(node, shapes(model), model.ir_version)
