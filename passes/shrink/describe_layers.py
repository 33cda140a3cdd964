"""Describe every layer with weights in both networks, with its multiplications (Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from graphscale.core.plan import LayerPlan
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.shrink.choose_kernels import Kernels, node_name
from graphscale.passes.spatial.dimensions import Dims, target_size
from graphscale.passes.spatial.traced import Traced

Sizes = Callable[[Dims], list[int]]


def describe_layers(traced: Traced, kernels: Kernels, pretrain: Sizes) -> list[LayerPlan]:
    """One entry per convolution and fully-connected layer, in the order of the graph.

    `pretrain` gives the pre-train sizes of a tensor's dimensions.
    """
    layers = []
    for node in traced.model.graph:
        if node in kernels.target:
            layers.append(_convolution(node, traced, kernels, pretrain))
        elif node.op_type in ("Gemm", "MatMul"):
            layer = _fully_connected(node, traced, pretrain)
            if layer is not None:
                layers.append(layer)
    return layers


def _target(dims: Dims) -> list[int]:
    return [target_size(dim) for dim in dims]


def _convolution(node: ir.Node, traced: Traced, kernels: Kernels, pretrain: Sizes) -> LayerPlan:
    before, after = traced.of(node.inputs[0]), traced.of(node.outputs[0])
    weight = traced.shape(node.inputs[1])
    kernel = kernels.target[node], kernels.pretrain[node]
    # Each input pixel of a transposed convolution meets each tap; else each output pixel does.
    counted = before if node.op_type == "ConvTranspose" else after
    counts = [
        weight[0] * weight[1] * prod(taps) * prod(sizes(counted)[2:])
        for taps, sizes in zip(kernel, (_target, pretrain))
    ]
    held = weight_source(node.inputs[1])
    return LayerPlan(
        name=node_name(node),
        weight=held.name if held is not None else node.inputs[1].name,
        op=node.op_type,
        target_kernel=list(kernel[0]),
        pretrain_kernel=list(kernel[1]),
        target_extent=_target(after)[2:],
        pretrain_extent=pretrain(after)[2:],
        target_multiplications=counts[0],
        pretrain_multiplications=counts[1],
        left_unscaled=kernels.left_unscaled.get(node),
    )


def _fully_connected(node: ir.Node, traced: Traced, pretrain: Sizes) -> LayerPlan | None:
    """A product with a weight; products of two activations have none and are no layer."""
    for index in (1, 0):
        held = weight_source(node.inputs[index])
        if held is not None:
            break
    else:
        return None
    rows, after = traced.of(node.inputs[1 - index]), traced.of(node.outputs[0])
    scaled = any(weight.node is node for weight in traced.weights)
    transposed = node.op_type == "Gemm" and node.attributes.get_int(
        ("transA", "transB")[1 - index], 0
    )
    position = -2 if (index == 1) == bool(transposed) else -1
    inner = [sizes(rows)[position] for sizes in (_target, pretrain)]
    outer = [prod(sizes(after)[1:]) for sizes in (_target, pretrain)]
    return LayerPlan(
        name=node_name(node),
        weight=held.name,
        op=node.op_type,
        target_kernel=[],
        pretrain_kernel=[],
        target_extent=[],
        pretrain_extent=[],
        target_multiplications=inner[0] * outer[0],
        pretrain_multiplications=inner[1] * outer[1],
        left_unscaled=None if scaled else "it reads no feature map",
    )
