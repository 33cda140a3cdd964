"""Draw fresh weights for a pre-train network, and find out whether a target is trained."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.passes.graph.weight_source import (
    set_tensor,
    shape_as_read,
    tensor_of,
    weight_source,
)
from graphscale.passes.spatial.registry import product_rule

_NORMALIZATIONS = {
    "BatchNormalization": (1, 0, 0, 1),  # scale, bias, mean, variance
    "InstanceNormalization": (1, 0),
    "LayerNormalization": (1, 0),
    "GroupNormalization": (1, 0),
}


def is_trained(model: ir.Model) -> bool:
    """Whether the weights look trained.

    A network counts as untrained where every kernel is one number repeated, or where all
    BatchNormalization statistics are mean 0 and variance 1, from which every framework starts.
    """
    statistics = [
        tensor_of(weight_source(node.inputs[index])).numpy()
        for node in model.graph
        if node.op_type == "BatchNormalization" and len(node.inputs) == 5
        for index in (3, 4)
        if weight_source(node.inputs[index]) is not None
    ]
    means, variances = statistics[::2], statistics[1::2]
    if means and all((m == 0).all() for m in means) and all((v == 1).all() for v in variances):
        return False
    kernels = [tensor_of(value).numpy() for value in _weights(model)]
    return any(kernel.size > 1 and (kernel != kernel.flat[0]).any() for kernel in kernels)


def initialize(model: ir.Model, names: set[str] | None, seed: int) -> list[str]:
    """Draw kernels and fully-connected weights anew, in place; returns their names.

    The numbers are normal with variance 2 / fan-in (He et al. 2015). They are drawn when they are
    read, each weight from a seed of its own.

    Args:
        model: The pre-train network.
        names: The weights to draw. With None, all are drawn, biases become zero, and normalization
            layers the identity.
        seed: Of all the weights together.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for value, fan_in in _weights(model).items():
        if names is not None and value.name not in names:
            continue
        tensor = tensor_of(value)
        set_tensor(value, _normal(tensor, fan_in, generator.integers(2**63)))
        drawn.append(value.name)
    if names is None:
        for node in model.graph:
            _reset(node)
    return drawn


def _normal(tensor: ir.TensorProtocol, fan_in: int, seed: int) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        numbers = np.random.default_rng(seed).standard_normal(tensor.shape.numpy(), np.float32)
        numbers *= np.float32((2 / fan_in) ** 0.5)
        return ir.Tensor(numbers.astype(tensor.dtype.numpy()), tensor.dtype, name=tensor.name)

    return ir.LazyTensor(
        compute, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name, cache=False
    )


def _weights(model: ir.Model) -> dict[ir.Value, int]:
    """The kernels and fully-connected weights with their fan-in."""
    weights: dict[ir.Value, int] = {}
    for node in model.graph:
        rule = product_rule(node)
        for index in [] if rule is None else rule.trained_inputs(node):
            value = weight_source(node.inputs[index])
            if tensor_of(value).dtype.is_floating_point():
                fan_in = rule.fan_in(node, index, shape_as_read(node.inputs[index]))
                weights.setdefault(value, fan_in)
    return weights


def _reset(node: ir.Node) -> None:
    """Set the biases of a node to zero, a normalization to the identity."""
    if node.op_type in _NORMALIZATIONS:
        fills = dict(enumerate(_NORMALIZATIONS[node.op_type], start=1))
    else:
        rule = product_rule(node)
        bias = None if rule is None else rule.bias_input
        fills = {} if bias is None else {bias: 0}
    for index, fill in fills.items():
        value = weight_source(node.inputs[index]) if index < len(node.inputs) else None
        if value is None:
            continue
        tensor = tensor_of(value)
        array = np.full(tensor.shape.numpy(), fill, tensor.dtype.numpy())
        set_tensor(value, ir.Tensor(array, tensor.dtype, name=tensor.name))
