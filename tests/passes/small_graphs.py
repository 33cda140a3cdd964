"""Graphs of a few nodes for the tests of single passes and rules, written as ONNX text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper, parser

import graphscale
from graphscale.passes.graph.infer_shapes import infer_shapes
from graphscale.passes.shrink.choose_kernels import choose_kernels
from graphscale.passes.shrink.solve_geometry import solve_geometry
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyze import analyze
from graphscale.passes.spatial.dimensions import pretrain_size, single_size
from graphscale.passes.spatial.geometry import Geometry


def graph(
    nodes: str, inputs: str = "float[1,3,32,32] x", outputs: str = "y", opset: int = 20, **weights
) -> onnx.ModelProto:
    """A model of `nodes`; `weights` are arrays, or the shapes of random ones, by name."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "graphscale": 1, "com.microsoft": 1]>\n'
    model = parser.parse_model(f"{text} g ({inputs}) => ({outputs}) {{ {nodes} }}")
    random = np.random.default_rng(0)
    for name, value in weights.items():
        if isinstance(value, tuple):
            value = random.standard_normal(value).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{number}"
        if not node.domain:
            node.ClearField("domain")  # the parser sets it to "", other writers leave it out
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
        output.type.CopyFrom(found.type)
        output.type.tensor_type.elem_type = output.type.tensor_type.elem_type or 1
    del model.graph.value_info[:]
    return model


def analyzed(model: onnx.ModelProto) -> SpatialAnalysis:
    """The analysis of a model whose input shapes are numbers."""
    loaded = ir.from_proto(model)
    shapes = {
        value.name: [int(size) for size in value.shape]
        for value in loaded.graph.inputs
        if value.name not in loaded.graph.initializers
    }
    return analyze(loaded, infer_shapes(loaded, shapes))


def value(analysis: SpatialAnalysis, name: str) -> ir.Value:
    """The tensor of a name."""
    graph = analysis.model.graph
    found = {each.name: each for node in graph for each in node.outputs}
    found |= {each.name: each for each in graph.inputs} | dict(graph.initializers)
    return found[name]


def node(analysis: SpatialAnalysis, op_type: str) -> ir.Node:
    """The only node of an operator."""
    (found,) = [each for each in analysis.model.graph if each.op_type == op_type]
    return found


def solved(analysis: SpatialAnalysis, pixels: int) -> Geometry:
    """The geometry where each side of the inputs has `pixels` in the pre-train network."""
    sizes = {
        size: pixels
        for entry in analysis.model.graph.inputs
        for dim in analysis.of(entry)
        if (size := single_size(dim)) is not None
    }
    return solve_geometry(analysis, choose_kernels(analysis), sizes)


def pretrain_shape(analysis: SpatialAnalysis, geometry: Geometry, name: str) -> list[int]:
    """The pre-train shape of a tensor."""
    return [pretrain_size(dim, geometry.sizes) for dim in analysis.of(value(analysis, name))]


def run(model: onnx.ModelProto, **given: np.ndarray) -> dict[str, np.ndarray]:
    """What onnxruntime computes, of random inputs where none are given."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(1)
    for entry in session.get_inputs():
        if entry.name not in given:
            shape = [size if isinstance(size, int) else 2 for size in entry.shape]
            given[entry.name] = random.standard_normal(shape).astype(np.float32)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def attribute(model: onnx.ModelProto, op_type: str, name: str) -> object:
    """An attribute of the only node of an operator; None where it is left out."""
    (found,) = [each for each in model.graph.node if each.op_type == op_type]
    for each in found.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return None


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    """An initializer."""
    (found,) = [each for each in model.graph.initializer if each.name == name]
    return numpy_helper.to_array(found)


def plan_in(model: onnx.ModelProto) -> graphscale.Plan:
    """The plan that a pre-train model carries."""
    return graphscale.Plan.of(ir.from_proto(model))
