"""Ways to divide classes into clusters, for HierarchicalSoftmax."""

from __future__ import annotations

import torch
from torch import Tensor

from graphscale.core.errors import GraphScaleError


def balanced_clusters(num_classes: int, num_clusters: int) -> Tensor:
    """Cluster of each class [num_classes]: neighbours together, sizes equal up to one."""
    _check(num_classes, num_clusters)
    return torch.arange(num_classes) * num_clusters // num_classes


def frequency_clusters(frequencies: Tensor, num_clusters: int, equal_mass: bool = False) -> Tensor:
    """Cluster of each class [V] by falling frequency [V].

    Pieces have equal sizes, or with ``equal_mass`` about equal sums of frequencies: few frequent
    classes per cluster, and many rare ones.
    """
    count = len(frequencies)
    _check(count, num_clusters)
    order = torch.argsort(frequencies, descending=True, stable=True)
    if equal_mass:
        mass = frequencies.double()[order]
        middle = (mass.cumsum(0) - mass / 2) / mass.sum()
        pieces = (middle * num_clusters).long().clamp(max=num_clusters - 1)
    else:
        pieces = balanced_clusters(count, num_clusters)
    clusters = torch.empty(count, dtype=torch.int64)
    clusters[order] = pieces
    return clusters


def tree_clusters(vectors: Tensor, num_clusters: int) -> Tensor:
    """Cluster of each class [V] by its vector [V, D], such as its row of a lookup table.

    A binary tree: the largest piece is halved along its leading principal direction until there
    are ``num_clusters`` leaves. Classes of a cluster are alike, sizes are within a factor of two.
    """
    count = len(vectors)
    _check(count, num_clusters)
    pieces = [torch.arange(count)]
    while len(pieces) < num_clusters:
        pieces.sort(key=len)
        piece = pieces.pop()
        centred = vectors[piece].detach().double()
        centred = centred - centred.mean(0)
        direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        order = piece[torch.argsort(centred @ direction, stable=True)]
        pieces += [order[: len(order) // 2], order[len(order) // 2 :]]
    clusters = torch.empty(count, dtype=torch.int64)
    for number, piece in enumerate(sorted(pieces, key=lambda piece: int(piece.min()))):
        clusters[piece] = number
    return clusters


def _check(num_classes: int, num_clusters: int) -> None:
    if not 1 <= num_clusters <= num_classes:
        raise GraphScaleError(
            f"{num_clusters} clusters of {num_classes} classes; give between 1 cluster and one per "
            "class"
        )
