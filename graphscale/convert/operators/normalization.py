"""Translations of normalisation layers and Dropout.

BatchNormalization and Dropout differ in train() and eval(); each becomes a module in the network.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates

# Metadata of a Dropout node that drops whole channels ('channel') or whole images ('image').
# ONNX's Dropout has no attribute for that.
DROPS = "graphscale.drops"


class BatchNorm(nn.Module):
    """Batch statistics in train(), running statistics in eval().

    The weights belong to the network and come as arguments, so that this module holds none.

    Args:
        eps: Added to the variance.
        momentum: Weight of the *new* statistics, as in torch: 1 - ONNX's momentum.
        always_batch: The node has training_mode=1: batch statistics even in eval().
    """

    def __init__(self, eps: float, momentum: float, always_batch: bool) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.always_batch = always_batch

    def forward(self, x, scale, bias, mean, var):
        """Normalised x (N, C, ...); updates mean and var (C,) in train()."""
        if self.always_batch and not self.training:
            return F.batch_norm(x, None, None, scale, bias, True, self.momentum, self.eps)
        return F.batch_norm(x, mean, var, scale, bias, self.training, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """Settings, for print()."""
        return f"eps={self.eps}, momentum={self.momentum}"


@translates("BatchNormalization", weights=(1, 2), statistics=(3, 4))
def _batch_normalization(node, x, scale, bias, mean, var):
    if node.opset < 9 and node.attribute("spatial", 1) == 0:
        node.fail("spatial=0 (statistics per position) is not supported; use spatial=1")
    momentum, eps = node.attribute("momentum", 0.9), node.attribute("epsilon", 1e-5)
    training = bool(node.attribute("training_mode", 0))
    norm = node.module(BatchNorm(eps, 1.0 - momentum, training))
    y = norm(x, scale, bias, mean, var)
    if not (training and (node.uses_output(1) or node.uses_output(2))):
        return y
    axes = [0, *range(2, x.ndim)]
    new_mean = x.mean(axes)
    new_var = x.var(axes, correction=0)
    return (
        y,
        mean * momentum + new_mean * (1.0 - momentum),
        var * momentum + new_var * (1.0 - momentum),
    )


class Drop(nn.Module):
    """Dropout of whole channels, or of whole images as stochastic depth drops a residual branch.

    Args:
        probability: Of a channel or an image to be set to zero; the others are scaled up.
        axes: 1 to drop images, 2 to drop channels: how many leading axes are drawn one by one.
    """

    def __init__(self, probability: float, axes: int) -> None:
        super().__init__()
        self.probability = probability
        self.axes = axes

    def forward(self, x):
        """x (N, C, ...) in eval(), with parts set to zero in train()."""
        if not self.training:
            return x
        kept = x.new_empty(x.shape[: self.axes] + (1,) * (x.ndim - self.axes))
        kept.bernoulli_(1.0 - self.probability)
        return x * kept / (1.0 - self.probability)

    def extra_repr(self) -> str:
        """Settings, for print()."""
        return f"probability={self.probability}, axes={self.axes}"


@translates("Dropout")
def _dropout(node, x, ratio=None, training_mode=None):
    if ratio is not None:
        probability = float(ratio)
    else:
        probability = node.attribute("ratio", 0.5)
    axes = {"image": 1, "channel": 2}.get(node.metadata(DROPS))
    y = node.module(nn.Dropout(probability) if axes is None else Drop(probability, axes))(x)
    return (y, torch.ones_like(x).bool()) if node.uses_output(1) else y


@translates("InstanceNormalization", weights=(1, 2))
def _instance_normalization(node, x, scale, bias):
    return F.instance_norm(
        x, weight=scale, bias=bias, use_input_stats=True, eps=node.attribute("epsilon", 1e-5)
    )


@translates("LayerNormalization", weights=(1, 2))
def _layer_normalization(node, x, scale, bias=None):
    axis = node.attribute("axis", -1) % x.ndim
    eps = node.attribute("epsilon", 1e-5)
    sizes = x.shape[axis:]
    if not node.uses_output(1) and not node.uses_output(2):
        if tuple(scale.shape) == tuple(sizes):
            return F.layer_norm(x, sizes, scale, bias, eps)
        y = F.layer_norm(x, sizes, None, None, eps) * scale
        return y if bias is None else y + bias
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + eps)
    y = (x - mean) * inverse * scale
    return y if bias is None else y + bias, mean, inverse


@translates("SimplifiedLayerNormalization", "RMSNormalization", weights=(1,))
def _rms_normalization(node, x, scale):
    axes = list(range(node.attribute("axis", -1) % x.ndim, x.ndim))
    eps = node.attribute("epsilon", 1e-5)
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps) * scale


@translates("GroupNormalization", weights=(1, 2))
def _group_normalization(node, x, scale, bias):
    groups = node.attribute("num_groups")
    eps = node.attribute("epsilon", 1e-5)
    if node.opset >= 21 or groups == x.shape[1]:
        return F.group_norm(x, groups, scale, bias, eps)
    # Opset 18 scales per group, not per channel.
    repeat = x.shape[1] // groups
    return F.group_norm(
        x, groups, scale.repeat_interleave(repeat), bias.repeat_interleave(repeat), eps
    )


@translates("LRN")
def _lrn(node, x):
    size = node.attribute("size")
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    square = x.square().unsqueeze(1)
    window = [0, 0] * (x.ndim - 2) + [(size - 1) // 2, size // 2]
    mean = F.pad(square, window).unfold(2, size, 1).sum(-1) / size
    return x / (mean.squeeze(1) * alpha + node.attribute("bias", 1.0)) ** beta


@translates("LpNormalization")
def _lp_normalization(node, x):
    axis, p = node.attribute("axis", -1), node.attribute("p", 2)
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@translates("MeanVarianceNormalization")
def _mean_variance_normalization(node, x):
    axes = node.attribute("axes", [0, 2, 3])
    mean = x.mean(axes, keepdim=True)
    deviation = (x - mean).square().mean(axes, keepdim=True).sqrt()
    return (x - mean) / (deviation + 1e-9)
