"""A table of positions that a forward cuts apart, resizes to the size that it has, and joins."""

import numpy as np
import onnx
import onnx_ir as ir

import graphscale
from graphscale.passes.normalize.whole_tables import WholeTables

from ..small_graphs import constant, graph, run

END = 2**63 - 1


def transformer(grid: tuple[int, int] = (3, 3), order: str = "token, rest") -> onnx.ModelProto:
    """Nine patches of an image behind a class token, to which a table of 1 + 9 rows is added."""
    nodes = f"""
        c = Conv <strides=[8,8]> (x, w)
        t = Transpose <perm=[0,2,3,1]> (c)
        patches = Reshape (t, rows)
        sequence = Concat <axis=1> (class, patches)
        token = Slice (table, zero, one, one)
        map = Slice (table, one, end, one)
        square = Reshape (map, square_shape)
        turned = Transpose <perm=[0,3,1,2]> (square)
        fitted = Resize <mode="cubic", antialias=1, exclude_outside=1> (turned, , , sizes)
        back = Transpose <perm=[0,2,3,1]> (fitted)
        rest = Reshape (back, rows)
        positions = Concat <axis=1> ({order})
        y = Add (sequence, positions)
    """
    return graph(
        nodes,
        "float[1,3,24,24] x",
        w=(4, 3, 8, 8),
        table=(1, 10, 4),
        rows=np.array([1, -1, 4]),
        zero=np.array([0]),
        one=np.array([1]),
        end=np.array([END]),
        square_shape=np.array([1, 3, 3, 4]),
        sizes=np.array([1, 4, *grid]),
        **{"class": (1, 1, 4)},
    )


def test_the_table_is_read_itself() -> None:
    proto = transformer()
    model = ir.from_proto(proto)
    assert WholeTables({"x": [1, 3, 24, 24]})(model).names == ["table"]
    operators = ["Conv", "Transpose", "Reshape", "Concat", "Add"]
    assert [node.op_type for node in model.graph] == operators
    assert set(model.graph.initializers) == {"w", "table", "class", "rows"}
    found, wanted = run(ir.to_proto(model))["y"], run(proto)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_table_in_another_order_is_left() -> None:
    model = ir.from_proto(transformer(order="rest, token"))
    WholeTables({"x": [1, 3, 24, 24]})(model)
    assert "positions" in [node.outputs[0].name for node in model.graph]


def test_a_table_that_is_resized_is_left() -> None:
    model = ir.from_proto(graph("y = Resize (t, , , s)", "float[1] x", t=(1, 1, 2), s=[1, 1, 3]))
    assert not WholeTables({"x": [1]})(model).modified


def test_the_token_is_copied_and_the_map_resized() -> None:
    """By hand: of two pixels, three are interpolated at -1/6, 1/2 and 7/6."""
    target = transformer()
    pretrain = graphscale.shrink(target, input_size=16)
    small = constant(pretrain, "table")
    assert small.shape == (1, 5, 4)
    np.testing.assert_allclose(small[0, 0], constant(target, "table")[0, 0], rtol=1e-6)
    assert run(pretrain)["y"].shape == (1, 5, 4)
    grown = constant(graphscale.grow(pretrain), "table")
    line = [[1, 0], [0.5, 0.5], [0, 1]]
    by_hand = np.einsum("ia,jb,abc->ijc", line, line, small[0, 1:].reshape(2, 2, 4).astype(float))
    np.testing.assert_allclose(grown[0, 0], small[0, 0], rtol=1e-6)
    np.testing.assert_allclose(grown[0, 1:], by_hand.reshape(9, 4), rtol=1e-5, atol=1e-6)
