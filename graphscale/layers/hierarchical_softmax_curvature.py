"""Second derivatives of the two-level softmax, for double backward, in torch's own operators.

Gradients to the outputs of the operator HierarchicalSoftmaxLossGrad go in, those to its inputs come
out. hierarchical_softmax.py registers `gradients_of_gradients` as that operator's backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradients_of_gradients(
    cotangents: Sequence[Tensor],
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    class_row: Tensor,
    cluster_start: Tensor,
    clusters: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, ...]:
    """Gradients of HierarchicalSoftmaxLossGrad to grad, x and its four parameters.

    Takes the gradients to the operator's five outputs, ``cotangents``, and the operator's
    arguments, with ``parameters`` as cluster_weight, cluster_bias, weight and bias. The results can
    be differentiated again. Samples are sorted by their target's cluster and each cluster is
    computed alone, so the largest cluster bounds the memory. The number of samples per cluster is
    read back, which waits for a GPU.
    """
    to_x, to_outer_weight, to_outer_bias, to_weight, to_bias = cotangents
    outer_weight, outer_bias, weight, bias = parameters
    is_class = (target >= 0) & (target < class_row.numel())
    sample = ((target != ignore_index) & is_class).nonzero()[:, 0]
    row = class_row[target[sample]]
    cluster = torch.searchsorted(cluster_start, row, right=True) - 1
    order = cluster.argsort(stable=True)
    sample, row, cluster = sample[order], row[order], cluster[order]
    used, counts = cluster.unique_consecutive(return_counts=True)
    starts, ends = cluster_start[used], cluster_start[used + 1]
    places = _compact_starts(cluster_start, clusters)[used]

    # The softmax over the clusters, for all samples at once.
    mine = (grad[sample], x[sample], to_x[sample])
    slope, slope_x, slope_outer_weight, slope_outer_bias = _of_one_softmax(
        *mine, outer_weight, outer_bias, to_outer_weight, to_outer_bias, cluster
    )
    slope_weight, slope_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    slopes, slopes_x = [slope[:0]], [slope_x[:0]]
    # The softmax within each cluster that has samples: `start` to `end` are its rows of weight, and
    # `place` is where they begin in the compact gradient.
    columns = (row - cluster_start[cluster]).split(counts.tolist())
    pieces = zip(*(tensor.split(counts.tolist()) for tensor in mine))
    bounds = torch.stack([starts, ends, places], 1).tolist()
    for piece, column, (start, end, place) in zip(pieces, columns, bounds):
        given = slice(place, place + end - start)
        one, one_x, slope_weight[start:end], slope_bias[start:end] = _of_one_softmax(
            *piece, weight[start:end], bias[start:end], to_weight[given], to_bias[given], column
        )
        slopes.append(one)
        slopes_x.append(one_x)
    return (
        torch.zeros_like(grad).index_add(0, sample, slope + torch.cat(slopes)),
        torch.zeros_like(x).index_add(0, sample, slope_x + torch.cat(slopes_x)),
        slope_outer_weight,
        slope_outer_bias,
        slope_weight,
        slope_bias,
    )


def _compact_starts(cluster_start: Tensor, clusters: Tensor | None) -> Tensor:
    """Where each cluster's rows begin in the gradient to weight, compact for some ``clusters``."""
    if clusters is None:
        return cluster_start[:-1]
    sizes = cluster_start[clusters + 1] - cluster_start[clusters]
    return torch.zeros_like(cluster_start).index_copy(0, clusters, sizes.cumsum(0) - sizes)


def _of_one_softmax(
    grad: Tensor,
    x: Tensor,
    to_x: Tensor,
    weight: Tensor,
    bias: Tensor,
    to_weight: Tensor,
    to_bias: Tensor,
    target: Tensor,
) -> tuple[Tensor, ...]:
    """Second derivatives of one softmax: gradients of S to grad, x, weight and bias.

    S is the sum of the gradients times their cotangents. With logits z, their probabilities p and
    the derivative z' of z along the cotangents, S = sum over samples of
    grad (sum over k of p_k z'_k - z'_target).
    """
    probability = (x @ weight.T + bias).softmax(1)
    change = to_x @ weight.T + x @ to_weight.T + to_bias
    mean = (probability * change).sum(1, keepdim=True)
    slope = (mean - change.gather(1, target[:, None]))[:, 0]
    of_logits = grad[:, None] * probability * (change - mean)
    hot = torch.zeros_like(probability).scatter(1, target[:, None], 1)
    of_change = grad[:, None] * (probability - hot)
    return (
        slope,
        of_logits @ weight + of_change @ to_weight,
        of_logits.T @ x + of_change.T @ to_x,
        of_logits.sum(0),
    )
