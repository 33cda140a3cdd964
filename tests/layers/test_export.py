"""Exported layers in ONNX's own tools: inliner, reference evaluator, plain ONNX, other runtimes."""

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import graphscale
from graphscale import GraphScaleError
from graphscale.layers import (
    FeatureLPPooling,
    FFTConv2d,
    HierarchicalSoftmax,
    LookupTable,
    OneBitQuantize,
    TopClasses,
)
from graphscale.layers.export import to_onnx
from graphscale.layers.operator import DOMAIN, OPERATORS

from .cases import CASES, Case


class Quantize(nn.Module):
    def forward(self, gradient):
        # Not every runtime has outputs of uint32.
        words, scales = OneBitQuantize()(gradient)
        return words.long(), scales


torch.manual_seed(0)
EVERY = [
    *CASES,
    Case(TopClasses(HierarchicalSoftmax(3, 7), 2), (torch.randn(4, 3),)),
    Case(LookupTable(7, 3, max_norm=1.0), (torch.tensor([[1, 2]]),)),
    Case(Quantize(), (torch.randn(3, 40),)),
    Case(FFTConv2d(2, 4, 3, bias=False), (torch.randn(2, 2, 9, 8),)),
]


class Exported:
    """The files that `export` writes of a layer, with and without functions, and its outputs."""

    def __init__(self, case, folder):
        self.layer = case.layer.eval()
        model = to_onnx(self.layer, case.inputs)
        with pytest.MonkeyPatch.context() as patch:
            # torch's exporter takes most of the time, so it runs once for both files.
            patch.setattr("graphscale.layers.export.to_onnx", lambda *_, **__: model.clone())
            for name, inline in (("model.onnx", False), ("plain.onnx", True)):
                graphscale.export(self.layer, case.inputs, folder / name, inline=inline)
        self.model = onnx.load(folder / "model.onnx")
        self.plain_path = folder / "plain.onnx"
        names = [value.name for value in self.model.graph.input]
        self.feeds = dict(zip(names, [x.numpy() for x in case.inputs], strict=True))
        with torch.no_grad():
            y = self.layer(*case.inputs)
        self.outputs = [each.numpy() for each in ([y] if isinstance(y, torch.Tensor) else y)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, marks=pytest.mark.xdist_group(f"export of case {index}"))
        for index, case in enumerate(EVERY)
    ],
    ids=str,
)
def exported(request, tmp_path_factory):
    """Each layer, exported once for the tests of this file that take all layers."""
    return Exported(request.param, tmp_path_factory.mktemp("export"))


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_reference_evaluator_and_inliner(exported):
    model, given, wanted = exported.model, exported.feeds, exported.outputs
    assert_same(ReferenceEvaluator(model).run(None, given), wanted)
    inlined = onnx.inliner.inline_local_functions(model)
    assert not inlined.functions
    assert_same(onnxruntime.InferenceSession(inlined.SerializeToString()).run(None, given), wanted)


def test_inline_writes_plain_onnx(exported):
    model, given, wanted = onnx.load(exported.plain_path), exported.feeds, exported.outputs
    assert not model.functions
    assert {node.domain for node in model.graph.node} <= {""}
    assert [each.domain for each in model.opset_import] == [""]
    onnx.checker.check_model(model, full_check=True)
    assert_same(ReferenceEvaluator(model).run(None, given), wanted)
    assert_same(onnxruntime.InferenceSession(exported.plain_path).run(None, given), wanted)


def test_openvino_reads_plain_onnx(exported):
    openvino = pytest.importorskip("openvino")
    if isinstance(exported.layer, Quantize):
        pytest.skip("OpenVINO computes int64 in 32 bits, which are too few for words of uint32")
    core = openvino.Core()
    read = core.read_model(exported.plain_path)
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(list(exported.feeds.values()))
    assert_same(list(found.values()), exported.outputs)


def test_nodes_carry_every_attribute(exported):
    model = exported.model
    nodes = [node for part in (model.graph, *model.functions) for node in part.node]
    ours = [node for node in nodes if node.domain == DOMAIN]
    for node in ours:
        wanted = set(OPERATORS[node.op_type].definition.defaults)
        assert wanted <= {attribute.name for attribute in node.attribute}


def test_without_bodies(tmp_path):
    case = Case(FeatureLPPooling(2), (torch.randn(2, 8, 3),))
    graphscale.export(case.layer, case.inputs, tmp_path / "model.onnx", function_bodies=False)
    model = onnx.load(tmp_path / "model.onnx")
    assert not model.functions
    (node,) = model.graph.node
    assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {
        "width": 2,
        "stride": 1,
        "power": 2.0,
    }


def test_an_unknown_operator_is_an_error_that_names_it():
    model = to_onnx(FeatureLPPooling(2), (torch.randn(2, 8, 3),))
    next(iter(model.graph)).op_type = "Unheard"
    with pytest.raises(GraphScaleError, match=r"graphscale.Unheard, which .* upgrade"):
        graphscale.layers.export.add_function_bodies(model)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(GraphScaleError, match="is not a folder"):
        graphscale.export(FeatureLPPooling(2), (torch.randn(2, 8, 3),), tmp_path / "no" / "m.onnx")
