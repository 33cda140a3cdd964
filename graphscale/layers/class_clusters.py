"""Divides classes into clusters for HierarchicalSoftmax: evenly, by frequency or by likeness.

Each function gives int64 [num_classes], the cluster of each class, on the device of what it was
given (the CPU, where it was given numbers only); it raises GraphScaleError for a number of clusters
that is not between 1 and the number of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphscale.core.errors import GraphScaleError


def balanced_clusters(num_classes: int, num_clusters: int) -> Tensor:
    """Neighbouring classes in clusters whose sizes differ by at most one."""
    _check(num_classes, num_clusters)
    return torch.arange(num_classes, device="cpu") * num_clusters // num_classes


def frequency_clusters(frequencies: Tensor, num_clusters: int, equal_mass: bool = False) -> Tensor:
    """Classes in clusters by falling frequency [num_classes].

    Clusters have equal sizes or, with ``equal_mass``, about equal sums of frequencies: then
    clusters of frequent classes are small, and those of rare classes large.
    """
    count = len(frequencies)
    _check(count, num_clusters)
    order = torch.argsort(frequencies, descending=True, stable=True)
    if equal_mass:
        mass = frequencies.double()[order]
        middle = (mass.cumsum(0) - mass / 2) / mass.sum()
        pieces = (middle * num_clusters).long().clamp(max=num_clusters - 1)
    else:
        pieces = balanced_clusters(count, num_clusters).to(order.device)
    clusters = torch.empty_like(order)
    clusters[order] = pieces
    return clusters


def tree_clusters(vectors: Tensor, num_clusters: int) -> Tensor:
    """Classes in clusters by likeness of their vectors [num_classes, D], such as word embeddings.

    A binary tree: the largest cluster is halved along its leading principal direction until there
    are ``num_clusters``. The largest is at most about twice as large as the smallest.

    Example:
        >>> HierarchicalSoftmax(512, len(table), clusters=tree_clusters(table, 200))
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
    for number, piece in enumerate(sorted(pieces, key=lambda piece: int(piece.min()))):
        clusters[piece] = number
    return clusters


def _check(num_classes: int, num_clusters: int) -> None:
    if not 1 <= num_clusters <= num_classes:
        raise GraphScaleError(
            f"{num_clusters} clusters of {num_classes} classes; give between 1 cluster and one per "
            "class"
        )
