"""The shift of relative positions to absolute ones, as bottleneck attention writes it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphscale
from graphscale.passes.normalize.gather_offsets import GatherOffsets

from ..small_graphs import constant, graph, run

SIZE = 6
SHIFT = """
    {0}row = Reshape ({0}products, {0}rows)
    {0}wide = Pad ({0}row, {0}one)
    {0}line = Reshape ({0}wide, {0}lines)
    {0}long = Pad ({0}line, {0}rest)
    {0}cut = Reshape ({0}long, {0}cuts)
    {0}top = Slice ({0}cut, {0}zero, {0}size, {0}first)
    {0}logits = Slice ({0}top, {0}start, {0}end, {0}second)
"""


def numbers(name: str, rows: int, size: int = SIZE, start: int | None = None) -> dict:
    """The constants of one shift; `start` is where the last Slice begins."""
    given = {
        "rows": [-1, size, 2 * size - 1],
        "one": [0, 0, 0, 0, 0, 1],
        "lines": [rows, 2 * size * size],
        "rest": [0, 0, 0, size - 1],
        "cuts": [-1, size + 1, 2 * size - 1],
        "zero": [0],
        "size": [size],
        "first": [1],
        "start": [size - 1 if start is None else start],
        "end": [2 * size - 1 if start is None else start + size],
        "second": [2],
    }
    return {name + key: np.array(value) for key, value in given.items()}


def shift(**options: int) -> onnx.ModelProto:
    text = SHIFT.format("").replace("products", "x").replace("logits", "y")
    return graph(text, f"float[4,{SIZE},{2 * SIZE - 1}] x", **numbers("", 4, **options))


def test_a_shift_is_one_gather() -> None:
    proto = shift()
    model = ir.from_proto(proto)
    assert GatherOffsets({"x": [4, SIZE, 2 * SIZE - 1]})(model).modified
    operators = ["Reshape", "Transpose", "GatherND", "Transpose"]
    assert [node.op_type for node in model.graph] == operators
    x = np.random.default_rng(0).standard_normal((4, SIZE, 2 * SIZE - 1)).astype(np.float32)
    found = run(ir.to_proto(model), x=x)["y"]
    np.testing.assert_array_equal(found, run(proto, x=x)["y"])
    by_hand = [[x[:, i, j - i + SIZE - 1] for j in range(SIZE)] for i in range(SIZE)]
    np.testing.assert_array_equal(found, np.moveaxis(by_hand, 2, 0))


def test_another_shift_is_left() -> None:
    model = ir.from_proto(shift(start=SIZE - 2))
    assert not GatherOffsets({"x": [4, SIZE, 2 * SIZE - 1]})(model).modified


def attention() -> onnx.ModelProto:
    """The numbers of rows and of columns for each pair of a map's pixels."""
    wide, high = SHIFT.format("w_"), SHIFT.format("h_")
    nodes = f"""
        c = Conv <pads=[1,1,1,1]> (x, kernel)
        map = Transpose <perm=[0,2,3,1]> (c)
        w_products = MatMul (map, w_table)
        {wide}
        w_split = Reshape (w_logits, split)
        w_all = Expand (w_split, times)
        w_pairs = Transpose <perm=[0,1,3,2,4]> (w_all)
        turned = Transpose <perm=[0,2,1,3]> (map)
        h_products = MatMul (turned, h_table)
        {high}
        h_split = Reshape (h_logits, split)
        h_all = Expand (h_split, times)
        h_pairs = Transpose <perm=[0,3,1,4,2]> (h_all)
        pairs = Add (w_pairs, h_pairs)
        y = Reshape (pairs, scores)
    """
    return graph(
        nodes,
        f"float[1,3,{SIZE},{SIZE}] x",
        outputs="y",
        kernel=(4, 3, 3, 3),
        w_table=(4, 2 * SIZE - 1),
        h_table=(4, 2 * SIZE - 1),
        split=np.array([1, SIZE, 1, SIZE, SIZE]),
        times=np.array([1, 1, SIZE, 1, 1]),
        scores=np.array([1, SIZE**2, SIZE**2]),
        **numbers("w_", SIZE),
        **numbers("h_", SIZE),
    )


@pytest.mark.parametrize("pixels", [4, 3])
def test_the_tables_of_offsets_follow_the_map(pixels: int) -> None:
    target = attention()
    pretrain = graphscale.shrink(target, input_size=pixels)
    tables = {name: constant(pretrain, name) for name in ("w_table", "h_table")}
    assert {table.shape for table in tables.values()} == {(4, 2 * pixels - 1)}
    inner = onnx.ModelProto.FromString(pretrain.SerializeToString())
    inner.graph.output.add(name="map")
    outputs = run(inner)
    places = range(pixels)
    by_hand = [
        outputs["map"][0, y, x] @ tables["w_table"][:, u - x + pixels - 1]
        + outputs["map"][0, y, x] @ tables["h_table"][:, v - y + pixels - 1]
        for y in places
        for x in places
        for v in places
        for u in places
    ]
    np.testing.assert_allclose(outputs["y"].reshape(-1), by_hand, rtol=1e-4, atol=1e-4)
    # Grown by hand: each place is interpolated at half-pixel centres.
    grown = graphscale.grow(pretrain)
    large, small = 2 * SIZE - 1, 2 * pixels - 1
    centres = (np.arange(large) + 0.5) * small / large - 0.5
    for name, table in tables.items():
        wanted = [np.interp(centres, np.arange(small), row.astype(float)) for row in table]
        np.testing.assert_allclose(constant(grown, name), wanted, rtol=1e-5, atol=1e-6)
