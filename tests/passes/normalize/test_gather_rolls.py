"""Rolls that an exporter wrote as two Slices and a Concat."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphscale
from graphscale.passes.normalize.gather_rolls import GatherRolls

from ..small_graphs import graph, run


def rolled(first: tuple[int, int], second: tuple[int, int], axis: int) -> onnx.ModelProto:
    """A model that joins two Slices of a map of 9×8 pixels, given as (start, end)."""
    nodes = f"""
        a = Slice (x, start, end, axis)
        b = Slice (x, begin, stop, axis)
        y = Concat <axis={axis}> (a, b)
    """
    (start, end), (begin, stop) = first, second
    numbers = {"start": start, "end": end, "begin": begin, "stop": stop, "axis": axis}
    return graph(
        nodes,
        "float[1,2,9,8] x",
        **{name: np.array([number]) for name, number in numbers.items()},
    )


END = 2**63 - 1


@pytest.mark.parametrize(
    ("first", "second", "axis", "shift"),
    [((3, END), (0, 3), 2, -3), ((-3, END), (0, -3), 2, 3), ((5, 8), (0, 5), 3, 3)],
)
def test_a_roll_is_one_gather(first, second, axis: int, shift: int) -> None:
    proto = rolled(first, second, axis)
    model = ir.from_proto(proto)
    assert GatherRolls({"x": [1, 2, 9, 8]})(model).modified
    assert [node.op_type for node in model.graph] == ["Gather"]
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 8)).astype(np.float32)
    found = run(ir.to_proto(model), x=x)["y"]
    np.testing.assert_array_equal(found, np.roll(x, shift, axis))
    np.testing.assert_array_equal(found, run(proto, x=x)["y"])


@pytest.mark.parametrize(
    ("first", "second"), [((3, END), (0, 2)), ((0, 3), (3, END)), ((0, 2), (0, 7))]
)
def test_what_is_no_roll(first, second) -> None:
    """Pixels are lost, stay where they are, or are repeated."""
    model = ir.from_proto(rolled(first, second, 2))
    assert not GatherRolls({"x": [1, 2, 9, 8]})(model).modified


def test_a_map_is_rolled_by_as_many_pixels_in_the_pretrain_network() -> None:
    nodes = """
        c = Conv <pads=[1,1,1,1]> (x, w)
        a = Slice (c, from, to, axis)
        b = Slice (c, nothing, from, axis)
        y = Concat <axis=3> (a, b)
    """
    target = graph(
        nodes,
        w=(2, 3, 3, 3),
        **{"from": np.array([-2]), "to": np.array([END])},
        nothing=np.array([0]),
        axis=np.array([3]),
    )
    pretrain = graphscale.shrink(target, input_size=20)
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="c")
    outputs = run(inner)
    assert outputs["c"].shape == (1, 2, 20, 20)
    np.testing.assert_array_equal(outputs["y"], np.roll(outputs["c"], 2, 3))
