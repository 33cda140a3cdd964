"""Each reader of a shared integer gets a copy; copies that did not change are merged again."""

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.passes.normalize.split_constants import MergeConstants, SplitConstants
from tests.passes.parsed_graphs import normal, operators, read, run

# The [2] is where the rows start, and the axis: as torch's dynamo exporter writes x[:, :, 2:-2].
TWO_ROLES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, 8, 8] x) => (float[1, 3, 4, 8] y)
<int64[1] two = {2}, int64[1] end = {-2}>
{ y = Slice(x, two, end, two) }
"""


def test_each_role_has_a_constant_of_its_own():
    model = read(TWO_ROLES)
    result = SplitConstants()(model)
    assert result.names == ["two.copy"]
    (node,) = model.graph
    assert [value.name for value in node.inputs] == ["x", "two", "end", "two.copy"]
    x = normal(1, 3, 8, 8)
    np.testing.assert_array_equal(run(model, x=x)[0], x[:, :, 2:-2])


def test_merging_restores_the_model():
    model = read(TWO_ROLES)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    split = SplitConstants()
    split(model)
    assert MergeConstants(split.copies)(model).names == ["two.copy"]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_what_changed_stays_apart():
    model = read(TWO_ROLES)
    split = SplitConstants()
    split(model)
    two = model.graph.initializers["two"]
    two.const_value = ir.tensor(np.int64([1]), name="two")
    assert not MergeConstants(split.copies)(model).modified
    x = normal(1, 3, 8, 8)
    np.testing.assert_array_equal(run(model, x=x)[0], x[:, :, 1:-2])


def test_equal_changes_share_one_constant_and_unread_copies_go():
    model = read("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 6] x) => (float[A, B] y)
        <int64[2] shape = {3, 4}>
        {
            a = Reshape(x, shape)
            b = Reshape(a, shape)
            c = Reshape(b, shape)
            y = Reshape(c, shape)
        }
    """)
    split = SplitConstants()
    split(model)
    first, second, third = split.copies
    for value in (first, second):
        value.const_value = ir.tensor(np.int64([4, 3]), name=value.name)
    model.graph[3].replace_input_with(1, model.graph.initializers["shape"])
    MergeConstants(split.copies)(model)
    assert third.graph is None
    assert [node.inputs[1].name for node in model.graph] == [
        "shape",
        first.name,
        first.name,
        "shape",
    ]


def test_constant_nodes_are_split_and_weights_are_not():
    model = read(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x) => (float[A, B, C, D] y)
        {
            two = Constant <value_ints = [2]> ()
            a = Slice(x, two, end, two)
            b = Mul(a, w)
            y = Mul(b, w)
        }
        """,
        w=np.float32([2]),
        end=np.int64([8]),
    )
    assert SplitConstants()(model).names == ["two.copy"]
    assert operators(model) == ["Constant", "Slice", "Mul", "Mul"]


@pytest.mark.parametrize("array", [np.arange(100), np.zeros(3, np.int8)])
def test_tables_of_integers_stay_shared(array):
    model = read(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (int64[2] i) => (int64[2] y, int64[2] z)
        { y = Gather(t, i)  z = Gather(t, i) }
        """,
        t=array,
    )
    assert not SplitConstants()(model).modified
