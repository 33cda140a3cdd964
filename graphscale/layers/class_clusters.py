"""Divides classes into clusters for HierarchicalSoftmax: evenly, by frequency or by similarity.

What goes in is the number of clusters and what is known of the classes: their number, their
frequencies, or a vector for each. What comes out is the number of each class's cluster, int64
[num_classes]. Each function raises GraphScaleError for a number of clusters that is not between 1
and the number of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphscale.core.errors import GraphScaleError


def balanced_clusters(num_classes: int, num_clusters: int) -> Tensor:
    """Clusters of neighbouring classes, whose sizes differ by at most one: int64 [num_classes].

    Example:
        >>> balanced_clusters(5, 2)
        tensor([0, 0, 0, 1, 1])
    """
    _check(num_classes, num_clusters)
    return torch.arange(num_classes, device="cpu") * num_clusters // num_classes


def frequency_clusters(frequencies: Tensor, num_clusters: int, equal_mass: bool = False) -> Tensor:
    """Clusters of classes of similar frequency, the most frequent first: int64 [num_classes].

    Args:
        frequencies: Of any numeric type, [num_classes]; the result is on their device.
        num_clusters: How many clusters.
        equal_mass: False for clusters of equal sizes (they differ by at most one), True for about
            equal sums of frequencies: few frequent classes in a cluster, or many rare ones. Some
            clusters may then be empty, which HierarchicalSoftmax leaves out.

    Example:
        >>> frequency_clusters(torch.tensor([1, 7, 2, 5]), 2)
        tensor([1, 0, 1, 0])
    """
    count = len(frequencies)
    _check(count, num_clusters)
    order = torch.argsort(frequencies, descending=True, stable=True)
    if equal_mass:
        # A class belongs to the cluster that holds the middle of its part of the sum.
        mass = frequencies.double()[order]
        middle = (mass.cumsum(0) - mass / 2) / mass.sum()
        pieces = (middle * num_clusters).long().clamp(max=num_clusters - 1)
    else:
        pieces = balanced_clusters(count, num_clusters).to(order.device)
    clusters = torch.empty_like(order)
    clusters[order] = pieces
    return clusters


def tree_clusters(vectors: Tensor, num_clusters: int) -> Tensor:
    """Clusters of classes with similar vectors: int64 [num_classes].

    All classes are one cluster at first; then the largest cluster is halved along its first
    principal component, until there are ``num_clusters``. The largest is at most about twice as
    large as the smallest.

    Args:
        vectors: Of a floating-point type, [num_classes, D], such as word embeddings; the result is
            on their device.
        num_clusters: How many clusters.

    Example:
        >>> tree_clusters(torch.tensor([[5.0], [-5.0], [6.0], [-4.0]]), 2)
        tensor([0, 1, 0, 1])
    """
    count = len(vectors)
    _check(count, num_clusters)
    pieces = [torch.arange(count, device=vectors.device)]
    while len(pieces) < num_clusters:
        pieces.sort(key=len)
        piece = pieces.pop()
        centred = vectors[piece].detach().double()
        centred = centred - centred.mean(0)
        direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        order = piece[torch.argsort(centred @ direction, stable=True)]
        pieces += [order[: len(order) // 2], order[len(order) // 2 :]]
    clusters = torch.empty(count, dtype=torch.int64, device=vectors.device)
    # Numbered by their first class, so that the numbers do not depend on the order of halving.
    for number, piece in enumerate(sorted(pieces, key=lambda piece: int(piece.min()))):
        clusters[piece] = number
    return clusters


def _check(num_classes: int, num_clusters: int) -> None:
    if not 1 <= num_clusters <= num_classes:
        raise GraphScaleError(
            f"{num_clusters} clusters of {num_classes} classes; give between 1 cluster and one per "
            "class"
        )
