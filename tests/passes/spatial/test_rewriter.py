"""What rules write into the pre-train graph: attributes, constants, a Pad before a node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphscale.passes.spatial.rewriter import Rewriter
from tests.passes.small_graphs import analyzed, graph, node, run, solved, value


def rewriter(nodes: str, pixels: int = 20, opset: int = 20, **weights) -> Rewriter:
    analysis = analyzed(graph(nodes, opset=opset, **weights))
    return Rewriter(analysis, solved(analysis, pixels))


def test_pretrain_sizes_and_parameters() -> None:
    made = rewriter("y = Conv <pads=[3,3,3,3], strides=[2,2]> (x, w)", w=(4, 3, 7, 7))
    conv = node(made.analysis, "Conv")
    assert made.shape(value(made.analysis, "x")) == [1, 3, 20, 20]
    assert made.shape(value(made.analysis, "w")) == [4, 3, 7, 7]  # resized by the plan of weights
    parameters = made.parameters(conv)
    assert list(parameters) == [2, 3]
    assert parameters[2].kernel < 7
    _, _, height, _ = made.analysis.of(value(made.analysis, "y"))
    assert made.size(height) == parameters[2].output(20) == made.shape(conv.outputs[0])[2]
    assert made.resizes(conv)


def test_a_node_whose_sizes_are_fixed_is_not_resized() -> None:
    made = rewriter("c = Conv (x, w) p = GlobalAveragePool (c) y = Relu (p)", w=(4, 3, 3, 3))
    relu = node(made.analysis, "Relu")
    assert not made.resizes(relu)
    assert made.parameters(relu) == {}


def test_an_attribute_that_was_left_out_stays_out_where_its_default_holds() -> None:
    made = rewriter("y = Conv <pads=[1,1,1,1]> (x, w)", w=(4, 3, 3, 3))
    conv = node(made.analysis, "Conv")
    made.set_ints(conv, "strides", [1, 1], [1, 1])
    assert "strides" not in conv.attributes
    made.set_ints(conv, "strides", [2, 1], [1, 1])
    assert list(conv.attributes["strides"].value) == [2, 1]
    made.set_ints(conv, "pads", [0, 0, 0, 0], [0, 0, 0, 0])  # was there, so it stays
    assert list(conv.attributes["pads"].value) == [0, 0, 0, 0]


def test_a_taken_name_is_not_taken_twice() -> None:
    made = rewriter("y = Conv (x, w)", w=(4, 3, 3, 3))
    added = made.add_initializer("w", np.int64([1]))
    assert added.name != "w"
    assert made.analysis.model.graph.initializers[added.name] is added


@pytest.mark.parametrize("opset", [9, 20])
def test_a_pad_that_crops_before_the_node(opset: int) -> None:
    """Pads were an attribute before opset 11. onnxruntime computes what numpy's slices give."""
    made = rewriter("y = Relu (x)", opset=opset)
    relu = node(made.analysis, "Relu")
    made.insert_pad(relu, [0, 0, -2, 1, 0, 0, 0, -3])
    pad = node(made.analysis, "Pad")
    assert relu.inputs[0] is pad.outputs[0]
    assert ("pads" in pad.attributes) == (opset < 11)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    made.analysis.model.graph.outputs[0].shape = None
    found = run(ir.to_proto(made.analysis.model), x=x)["y"]
    wanted = np.pad(np.maximum(x, 0)[:, :, 2:, :29], ((0, 0), (0, 0), (0, 0), (1, 0)))
    np.testing.assert_array_equal(found, wanted)
