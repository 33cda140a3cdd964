"""Places in flattened maps, split into rows and columns by constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from tests.passes.small_graphs import graph, run

CONV = "c = Conv <pads=[1,1,1,1]> (x, w) f = Reshape (c, flat)"
BEST = "i = ArgMax <axis=2, keepdims=0> (f)"
TOP = "v, i = TopK <axis=2> (f, k)"


def width_of(model: onnx.ModelProto, name: str) -> int:
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    (found,) = [each for each in inferred if each.name == name]
    return found.type.tensor_type.shape.dim[3].dim_value


@pytest.mark.parametrize("nodes", [BEST, TOP])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_rows_and_columns_of_the_best_pixels(nodes: str, dtype: type) -> None:
    """The pre-train network finds the row and column in its own map; the grown one as before."""
    cast = f"p = Cast <to={7 if dtype == np.int64 else 1}> (i)"
    split = "a = Div (p, width) b = Mod <fmod=1> (p, width) y = Concat <axis=0> (p, a, b)"
    numbers = {"flat": np.array([0, 0, -1]), "width": np.array(32, dtype)}
    if nodes is TOP:
        numbers["k"] = np.array([3])
    target = graph(CONV + nodes + cast + split, w=(4, 3, 3, 3), **numbers)
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    side = width_of(pretrain, "c")
    assert side < 32
    places, rows, columns = np.split(run(pretrain)["y"], 3)
    exact = places / side if dtype == np.float32 else places // side
    np.testing.assert_allclose(rows, exact, rtol=1e-6)
    np.testing.assert_array_equal(columns, places % side)
    places, _, columns = np.split(run(graphscale.grow(pretrain))["y"], 3)
    np.testing.assert_array_equal(columns, places % 32)


def test_other_divisors_stay() -> None:
    """The best of places times classes: what is divided by the classes is no width."""
    nodes = "c = Conv <pads=[1,1,1,1]> (x, w) t = Transpose <perm=[0,2,3,1]> (c) "
    nodes += "f = Reshape (t, flat) v, i = TopK <axis=1> (f, k) "
    nodes += "m = Mod (i, classes) y = Concat <axis=0> (i, m)"
    numbers = {"flat": np.array([0, -1]), "classes": np.array(4), "k": np.array([5])}
    pretrain = graphscale.shrink(graph(nodes, w=(4, 3, 3, 3), **numbers), input_size=20)
    places, classes = np.split(run(pretrain)["y"], 2)
    np.testing.assert_array_equal(classes, places % 4)
