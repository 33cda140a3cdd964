"""What a translation sees of its node."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from graphscale import GraphScaleError
from graphscale.convert.node import NodeView
from graphscale.convert.tracing import Tracer


def view(node: ir.Node, dtype: torch.dtype | None = None, **options) -> NodeView:
    tracer = Tracer(nn.Module(), [3, 5])
    return NodeView(node, 17, tracer, "file.onnx", dtype, options.get("import_graph"))


def test_attributes_are_pythons_and_torchs() -> None:
    tensor = ir.Tensor(np.float16([1, 2]), name="t")
    attributes = {"i": 3, "f": 0.5, "s": "same", "ints": [1, 2], "floats": [0.5], "t": tensor}
    made = view(ir.node("Own", [], attributes))
    found = {name: made.attribute(name) for name in attributes}
    assert torch.equal(found.pop("t"), torch.tensor([1.0, 2.0], dtype=torch.float16))
    assert found == {name: attributes[name] for name in found}
    assert isinstance(found["ints"], list)
    assert made.attribute("absent") is None
    assert made.attribute("absent", [1, 1]) == [1, 1]
    assert (made.op_type, made.opset) == ("Own", 17)


def test_the_type_to_compute_in() -> None:
    node = ir.node("Own", [])
    assert view(node).working_dtype(torch.float16) == torch.float16
    double = view(node, torch.float64)
    assert double.working_dtype(torch.float16) == torch.float64
    assert double.working_dtype(torch.int64) == torch.int64


def test_outputs_that_something_reads() -> None:
    node = ir.node("Split", [], num_outputs=3)
    ir.Graph([], [node.outputs[0]], nodes=[node, ir.node("Relu", [node.outputs[2]])])
    made = view(node)
    assert made.output_count == 3
    assert [made.uses_output(index) for index in range(4)] == [True, False, True, False]


def test_metadata() -> None:
    node = ir.node("Own", [])
    node.metadata_props["kind"] = "channel"
    assert view(node).metadata("kind") == "channel"
    assert view(node).metadata("other") is None


def test_branches_are_imported() -> None:
    branch = ir.Graph([], [], nodes=[])
    node = ir.node("If", [], {"then_branch": branch})
    assert view(node, import_graph=lambda graph: [graph]).branch("then_branch") == [branch]


def test_modules_are_named_by_the_operator() -> None:
    made = view(ir.node("Dropout", []))
    x = made._tracer.input("x", [(3, 2), (5, 2)], torch.float32)
    made.module(nn.Dropout(0.5))(x)
    assert [name for name, _ in made._tracer.root.named_children()] == ["Dropout_0"]
    assert made.create(torch.zeros, (x.shape[0],)).samples[1].shape == (5,)


def test_a_refusal_names_file_and_node() -> None:
    with pytest.raises(GraphScaleError) as caught:
        view(ir.node("Own", [], name="middle")).fail("its mode is cubic; use another")
    assert str(caught.value) == (
        "file.onnx: node 'middle' (Own) cannot be turned into torch: its mode is cubic; use another"
    )
