"""Translations of activation functions, all element-wise but the softmaxes."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates
from graphscale.convert.tracing import is_program_value

translates("Relu")(lambda node, x: torch.relu(x))
translates("Sigmoid")(lambda node, x: torch.sigmoid(x))
translates("Tanh")(lambda node, x: torch.tanh(x))
translates("Softsign")(lambda node, x: F.softsign(x))
translates("Mish")(lambda node, x: F.mish(x))
# torch's softplus returns x itself beyond a threshold. Beyond 40 that equals ONNX's formula in
# float64.
translates("Softplus")(lambda node, x: F.softplus(x, 1.0, 40.0))
translates("LeakyRelu")(lambda node, x: F.leaky_relu(x, node.attribute("alpha", 0.01)))
translates("Elu")(lambda node, x: F.elu(x, node.attribute("alpha", 1.0)))
translates("Celu")(lambda node, x: F.celu(x, node.attribute("alpha", 1.0)))
translates("ThresholdedRelu")(lambda node, x: F.threshold(x, node.attribute("alpha", 1.0), 0.0))
translates("Gelu")(lambda node, x: F.gelu(x, approximate=node.attribute("approximate", "none")))
translates("HardSwish")(lambda node, x: F.hardswish(x))


@translates("Swish")
def _swish(node, x):
    alpha = node.attribute("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(x * alpha)


@translates("Selu")
def _selu(node, x):
    alpha = node.attribute("alpha", 1.67326319217681884765625)
    gamma = node.attribute("gamma", 1.05070102214813232421875)
    return F.elu(x, alpha) * gamma


@translates("HardSigmoid")
def _hard_sigmoid(node, x):
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@translates("PRelu", weights=(1,))
def _prelu(node, x, slope):
    return torch.where(x < 0, x * slope.to(x.dtype), x)


@translates("Shrink")
def _shrink(node, x):
    bias, limit = node.attribute("bias", 0.0), node.attribute("lambd", 0.5)
    outer = torch.where(x > limit, x - bias, torch.zeros_like(x))
    return torch.where(x < -limit, x + bias, outer)


@translates("Clip")
def _clip(node, x, low=None, high=None):
    if node.opset < 11:
        low, high = node.attribute("min"), node.attribute("max")
    low, high = _number(low), _number(high)
    if is_program_value(low) or is_program_value(high):
        x = x if low is None else torch.clamp(x, min=low)
        return x if high is None else torch.clamp(x, max=high)
    if low == 0.0 and high == 6.0 and x.is_floating_point():
        return F.relu6(x)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _number(bound):
    return bound.item() if isinstance(bound, torch.Tensor) else bound


def _softmax(function, node, x):
    if node.opset >= 13:
        return function(x, node.attribute("axis", -1))
    # Before opset 13 the softmax runs over all axes from `axis` on, flattened to one.
    axis = node.attribute("axis", 1) % max(x.ndim, 1)
    if axis == x.ndim - 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).unflatten(axis, x.shape[axis:])


translates("Softmax")(lambda node, x: _softmax(torch.softmax, node, x))
translates("LogSoftmax")(lambda node, x: _softmax(torch.log_softmax, node, x))


@translates("Hardmax")
def _hardmax(node, x):
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1) % x.ndim
    flat = x if node.opset >= 13 else x.flatten(axis)
    hot = F.one_hot(flat.argmax(axis), flat.shape[axis]).movedim(-1, axis).to(x.dtype)
    return hot if node.opset >= 13 else hot.unflatten(axis, x.shape[axis:])
