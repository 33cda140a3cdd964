"""Sequences have the shapes that onnxruntime gives their tensors."""

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.infer_sequences import split_sizes
from graphscale.passes.graph.infer_shapes import infer_shapes
from tests.passes.parsed_graphs import normal, read, run

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, C] x) => (float[A, B] y)'


@pytest.mark.parametrize("split", [np.int64(3), np.int64([1, 4, 2])])
@pytest.mark.parametrize("index", [0, 2, -1])
def test_split_and_pick(split, index):
    model = read(
        f"""{HEAD} {{
            parts = SplitToSequence <axis = 1> (x, split)
            y = SequenceAt(parts, index)
        }}""",
        split=split,
        index=np.int64(index),
    )
    found = infer_shapes(model, {"x": [2, 7]})
    (expected,) = run(model, x=normal(2, 7))
    assert found.shapes[model.graph.outputs[0]] == expected.shape
    assert split_sizes(model.graph[0], found) == ([3, 3, 1] if split.ndim == 0 else [1, 4, 2])


@pytest.mark.parametrize("index", [np.int64(5), np.int64([0, 1])])
def test_what_does_not_fit_is_named(index):
    nodes = "{ parts = SequenceConstruct(x, x)  y = SequenceAt(parts, index) }"
    with pytest.raises(GraphScaleError, match=r"node .* \(SequenceAt\): .* leave this node out"):
        infer_shapes(read(f"{HEAD} {nodes}", index=index), {"x": [2, 7]})


@pytest.mark.parametrize("new_axis", [0, 1])
def test_construct_and_join(new_axis):
    model = read(f"""{HEAD} {{
        parts = SequenceConstruct(x, x, x)
        y = ConcatFromSequence <axis = -1, new_axis = {new_axis}> (parts)
    }}""")
    if new_axis:
        model.graph.outputs[0].shape = ir.Shape([None, None, None])
    found = infer_shapes(model, {"x": [2, 7]})
    (expected,) = run(model, x=normal(2, 7))
    assert found.shapes[model.graph.outputs[0]] == expected.shape
