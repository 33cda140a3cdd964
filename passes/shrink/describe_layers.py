"""Describe every layer with weights in both networks, with its multiplications (Eq. 3).

In go the analysis, the chosen kernels and the solved geometry; out come the `LayerPlan`s. The rules
of the operators say what a layer is, and how often its weight is multiplied with.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.core.plan import LayerPlan
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.shrink.choose_kernels import ChosenKernels
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import Dims, target_size
from graphscale.passes.spatial.geometry import Geometry
from graphscale.passes.spatial.registry import ConvolutionRule, MatrixProductRule, find_rule


def describe_layers(
    analysis: SpatialAnalysis, kernels: ChosenKernels, geometry: Geometry
) -> list[LayerPlan]:
    """One entry per convolution and fully-connected layer, in the order of the graph."""
    layers = []
    for node in analysis.model.graph:
        rule = find_rule(node)
        if isinstance(rule, ConvolutionRule):
            layers.append(_convolution(node, rule, analysis, kernels, geometry))
        elif isinstance(rule, MatrixProductRule):
            index = rule.weight_input(node)
            if index is not None:  # products of two computed tensors, as in attention, are no layer
                held = weight_source(node.inputs[index])
                layers.append(_fully_connected(node, rule, held, analysis, geometry))
    return layers


def _target(dims: Dims) -> list[int]:
    """Shape in the target network, as `Geometry.shape` gives the one in the pre-train network."""
    return [target_size(dim) for dim in dims]


def _convolution(
    node: ir.Node,
    rule: ConvolutionRule,
    analysis: SpatialAnalysis,
    kernels: ChosenKernels,
    geometry: Geometry,
) -> LayerPlan:
    after = analysis.of(node.outputs[0])
    weight = analysis.shape(node.inputs[1])
    kernel = kernels.target[node], geometry.kernels[node]
    visited = rule.visited(node, analysis)
    counts = [
        weight[0] * weight[1] * prod(taps) * prod(shape(visited)[2:])
        for taps, shape in zip(kernel, (_target, geometry.shape))
    ]
    held = weight_source(node.inputs[1])
    return LayerPlan(
        name=node_name(node),
        weight=held.name if held is not None else node.inputs[1].name,
        op=node.op_type,
        target_kernel=list(kernel[0]),
        pretrain_kernel=list(kernel[1]),
        target_size=_target(after)[2:],
        pretrain_size=geometry.shape(after)[2:],
        target_multiplications=counts[0],
        pretrain_multiplications=counts[1],
        left_unscaled=kernels.left_unscaled.get(node),
    )


def _fully_connected(
    node: ir.Node,
    rule: MatrixProductRule,
    held: ir.Value,
    analysis: SpatialAnalysis,
    geometry: Geometry,
) -> LayerPlan:
    """A product with the weight `held`."""
    scaled = any(weight.node is node for weight in analysis.weights)
    counts = [
        rule.multiplications(node, lambda value, shape=shape: shape(analysis.of(value)))
        for shape in (_target, geometry.shape)
    ]
    return LayerPlan(
        name=node_name(node),
        weight=held.name,
        op=node.op_type,
        target_kernel=[],
        pretrain_kernel=[],
        target_size=[],
        pretrain_size=[],
        target_multiplications=counts[0],
        pretrain_multiplications=counts[1],
        left_unscaled=None if scaled else "it reads no feature map",
    )
