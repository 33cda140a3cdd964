"""The two-level softmax's operators written in torch's own, for forward mode and torch.vmap.

Each function takes the arguments of the library's operator of that name and returns the same
outputs. It computes all logits [N, V], where the library's kernels of the loss compute those of the
target's cluster only: torch.vmap needs shapes that do not depend on data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphscale.core.errors import GraphScaleError


def log_probabilities(
    x: Tensor,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    cluster_start: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of p(cluster) [N, K] and p(class | its cluster) [N, V], and row_cluster [V].

    Classes are in the order of the rows of ``weight``.
    """
    cluster_log_prob = (x @ cluster_weight.T + cluster_bias).log_softmax(1)
    logits = x @ weight.T + bias
    rows = torch.arange(weight.shape[0], device=weight.device)
    row_cluster = torch.searchsorted(cluster_start, rows, right=True) - 1
    # Subtracting each cluster's largest logit keeps exp from overflowing; as a constant it changes
    # no derivative.
    places = row_cluster.expand(logits.shape)
    lowest = torch.full_like(cluster_log_prob, -torch.inf)
    largest = lowest.detach().scatter_reduce(1, places, logits.detach(), "amax")
    shifted = logits - largest[:, row_cluster]
    sums = torch.zeros_like(cluster_log_prob).index_add(1, row_cluster, shifted.exp())
    return cluster_log_prob, shifted - sums.log()[:, row_cluster], row_cluster


def _rows_of(target: Tensor, class_row: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Whether each target is ignored, and its row of weight; class 0's row for an ignored one."""
    ignored = target == ignore_index
    return ignored, class_row[torch.where(ignored, 0, target)]


def loss(
    x: Tensor,
    target: Tensor,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    class_row: Tensor,
    cluster_start: Tensor,
    ignore_index: int,
) -> Tensor:
    """HierarchicalSoftmaxLoss: minus the log-probability of each target [N]."""
    cluster_log_prob, within, row_cluster = log_probabilities(
        x, cluster_weight, cluster_bias, weight, bias, cluster_start
    )
    ignored, row = _rows_of(target, class_row, ignore_index)
    outer = cluster_log_prob.gather(1, row_cluster[row][:, None])
    inner = within.gather(1, row[:, None])
    return torch.where(ignored, 0, -(outer + inner)[:, 0])


def loss_grad(
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    class_row: Tensor,
    cluster_start: Tensor,
    clusters: Tensor | None,
    ignore_index: int,
    rows: int,
) -> tuple[Tensor, ...]:
    """HierarchicalSoftmaxLossGrad: its five gradients, dense."""
    if clusters is not None:
        raise GraphScaleError(
            "HierarchicalSoftmaxLossGrad: torch.func and forward mode know no compact gradients; "
            "leave `clusters` out (HierarchicalSoftmax: sparse=False)"
        )
    cluster_log_prob, within, row_cluster = log_probabilities(
        x, cluster_weight, cluster_bias, weight, bias, cluster_start
    )
    ignored, row = _rows_of(target, class_row, ignore_index)
    factor = torch.where(ignored, 0, grad)[:, None]
    cluster = row_cluster[row][:, None]
    is_cluster = torch.arange(cluster_weight.shape[0], device=x.device) == cluster
    is_class = torch.arange(weight.shape[0], device=x.device) == row[:, None]
    outer = factor * (cluster_log_prob.exp() - is_cluster.to(x.dtype))
    in_cluster = torch.where(row_cluster == cluster, within.exp(), 0)
    inner = factor * (in_cluster - is_class.to(x.dtype))
    grad_x = outer @ cluster_weight + inner @ weight
    return grad_x, outer.T @ x, outer.sum(0), inner.T @ x, inner.sum(0)


def log_prob(
    x: Tensor,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    row_class: Tensor,
    cluster_start: Tensor,
) -> Tensor:
    """HierarchicalSoftmaxLogProb: log-probabilities [N, V], in the order of the classes."""
    cluster_log_prob, within, row_cluster = log_probabilities(
        x, cluster_weight, cluster_bias, weight, bias, cluster_start
    )
    return (cluster_log_prob[:, row_cluster] + within)[:, row_class.argsort()]


def top_k(
    x: Tensor,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    row_class: Tensor,
    cluster_start: Tensor,
    k: int,
) -> tuple[Tensor, Tensor]:
    """HierarchicalSoftmaxTopK: log-probabilities and classes [N, k] of the k best classes."""
    every = log_prob(x, cluster_weight, cluster_bias, weight, bias, row_class, cluster_start)
    values, classes = every.topk(k, 1)
    return values, classes
