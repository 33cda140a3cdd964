"""Lookup table and hierarchical softmax whose classes are split over ranks.

In: a whole layer, the same on every rank, and the process group. Out: a module that holds this
rank's rows and computes what the whole layer computes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.split_batches import check_batch, enter, leave, own_share
from graphscale.layers.hierarchical_softmax import HierarchicalSoftmax, hierarchical_softmax_loss
from graphscale.layers.lookup_table import LookupTable


def _own_part(weight: nn.Parameter, rows: slice) -> nn.Parameter:
    """This rank's rows of a weight, frozen where that is."""
    return nn.Parameter(weight.detach()[rows].clone(), requires_grad=weight.requires_grad)


class SplitLookupTable(nn.Module):
    """A `LookupTable` whose rows are split over ranks; each reads its own, and the sum is sent.

    Args:
        table: The whole table, without max_norm, sparse gradients and row weights.
        group: The ranks that share the rows.
        batch: 'same' or 'split', see `ModelParallel`.

    Attributes:
        weight: This rank's rows [V / ranks, embedding_dim].
        own_rows: Which rows of the whole weight these are, by the weight's name.
        whole_rows: How many rows the whole weight has.
    """

    def __init__(
        self, table: LookupTable | nn.Embedding, group: dist.ProcessGroup, batch: str = "same"
    ) -> None:
        super().__init__()
        check_batch("SplitLookupTable", batch)
        by_frequency = getattr(table, "scale_grad_by_freq", False)
        if table.max_norm is not None or table.sparse or by_frequency:
            raise GraphScaleError(
                "SplitLookupTable: a table with max_norm, sparse gradients or scale_grad_by_freq "
                "cannot be split; make it without them"
            )
        self.num_embeddings = table.num_embeddings
        self.padding_idx = table.padding_idx
        # The padding's row is zeros in a LookupTable; torch's Embedding only does not train it.
        self.padding_is_zero = isinstance(table, LookupTable)
        self.features_first = getattr(table, "features_first", False)
        self.group, self.batch = group, batch
        self.rows = own_share(table.num_embeddings, group)
        self.own_rows = {"weight": self.rows}
        self.whole_rows = {"weight": table.num_embeddings}
        self.weight = _own_part(table.weight, self.rows)

    def forward(self, indices: Tensor) -> Tensor:
        """Rows [..., embedding_dim] of integer indices [...]."""
        if ((indices < 0) | (indices >= self.num_embeddings)).any():
            raise GraphScaleError(
                f"SplitLookupTable: an index is not in the table's {self.num_embeddings} rows; "
                "give numbers from 0 on"
            )
        indices = enter(indices.long(), self.batch, self.group)
        own = (indices >= self.rows.start) & (indices < self.rows.stop)
        padding = None
        if self.padding_idx is not None and self.padding_is_zero:
            own &= indices != self.padding_idx
        elif self.padding_idx is not None and self.rows.start <= self.padding_idx < self.rows.stop:
            padding = self.padding_idx - self.rows.start
        if len(self.weight):
            own_index = torch.where(own, indices - self.rows.start, 0)
            rows = nn.functional.embedding(own_index, self.weight, padding)
        else:  # there are fewer rows than ranks
            rows = self.weight.sum() + self.weight.new_zeros(*indices.shape, self.weight.shape[1])
        rows = torch.where(own[..., None], rows, torch.zeros_like(rows))
        y = leave(rows, self.batch, self.group)
        return y.mT if self.features_first else y


class SplitHierarchicalSoftmax(nn.Module):
    """A `HierarchicalSoftmax` whose clusters, with their classes, are split over ranks.

    Of a sample's loss, -log p(cluster) - log p(class | cluster), the rank with the target's cluster
    computes what concerns the class, and every rank its clusters' part of the sum that normalises
    p(cluster). Between ranks go two numbers per sample.

    Args:
        softmax: The whole layer, with dense gradients.
        group: The ranks that share the clusters.
        batch: 'same' or 'split', see `ModelParallel`.

    Attributes:
        cluster_weight, cluster_bias, weight, bias: Those of this rank's clusters and classes.
        own_rows: Which rows of the whole weights these are, by the weights' names.
        whole_rows: How many rows the whole weights have.
    """

    def __init__(
        self, softmax: HierarchicalSoftmax, group: dist.ProcessGroup, batch: str = "same"
    ) -> None:
        super().__init__()
        check_batch("SplitHierarchicalSoftmax", batch)
        clusters = len(softmax.cluster_bias)
        if softmax.sparse or clusters < dist.get_world_size(group):
            raise GraphScaleError(
                f"SplitHierarchicalSoftmax: {clusters} clusters with "
                f"{'sparse' if softmax.sparse else 'dense'} gradients cannot be split over "
                f"{dist.get_world_size(group)} ranks; give a cluster per rank and sparse=False"
            )
        self.group, self.batch = group, batch
        self.reduction, self.ignore_index = softmax.reduction, softmax.ignore_index
        # Clusters are shared out so that every rank has one, and about as many as the others.
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        own = slice(rank * clusters // ranks, (rank + 1) * clusters // ranks)
        start = softmax.cluster_start[own.start : own.stop + 1]
        first, last = start[0].item(), start[-1].item()
        rows = slice(first, last)
        self.own_rows = {"weight": rows, "bias": rows, "cluster_weight": own, "cluster_bias": own}
        self.whole_rows = {name: len(getattr(softmax, name)) for name in self.own_rows}
        self.cluster_weight = _own_part(softmax.cluster_weight, own)
        self.cluster_bias = _own_part(softmax.cluster_bias, own)
        self.weight = _own_part(softmax.weight, rows)
        self.bias = _own_part(softmax.bias, rows)
        for name, buffer in softmax.named_buffers():  # of the whole layer, for a checkpoint
            self.register_buffer(name, buffer)
        self._register("own_start", start - first)
        # Row of each class in this rank's weight; -1 for classes of other ranks.
        row = softmax.class_row
        here = (row >= first) & (row < last)
        self._register("own_row", torch.where(here, row - first, -1))
        self._register("row_numbers", torch.arange(last - first, device=row.device))

    def _register(self, name: str, buffer: Tensor) -> None:
        self.register_buffer(name, buffer, persistent=False)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Load the weights; clusters cannot change, since they say which weights are here."""
        for name in ("class_row", "cluster_start"):
            own = getattr(self, name)
            if not torch.equal(state_dict.get(prefix + name, own).to(own.device), own):
                raise GraphScaleError(
                    f"SplitHierarchicalSoftmax: {prefix}{name} of the checkpoint is of other "
                    "clusters; make the layer with the clusters of the checkpoint"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Loss of x [N, D] for integer target [N], reduced as by `HierarchicalSoftmax`."""
        counted = target != self.ignore_index
        if (counted & ((target < 0) | (target >= len(self.own_row)))).any():
            raise GraphScaleError(
                f"SplitHierarchicalSoftmax: a target is no class; give numbers from 0 to "
                f"{len(self.own_row) - 1}, or {self.ignore_index} to leave a sample out"
            )
        x = enter(x, self.batch, self.group)
        every = enter(target, self.batch, self.group)
        row = self.own_row[torch.where(every == self.ignore_index, 0, every)]
        here = (row >= 0) & (every != self.ignore_index)
        # The library's loss normalises over this rank's clusters; `local` is that normaliser.
        within = hierarchical_softmax_loss(
            x,
            torch.where(here, row, self.ignore_index if self.ignore_index < 0 else -100),
            *(self.cluster_weight, self.cluster_bias, self.weight, self.bias),
            *(self.row_numbers, self.own_start),
            self.ignore_index if self.ignore_index < 0 else -100,
        )
        local = torch.logsumexp(nn.functional.linear(x, self.cluster_weight, self.cluster_bias), 1)
        numerator = torch.where(here, within - local, torch.zeros_like(local))
        largest = local.detach().clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        both = torch.stack([numerator, (local - largest).exp()], 1)
        both = leave(both, self.batch, self.group)
        if self.batch == "split":
            count, rank = len(target), dist.get_rank(self.group)
            largest = largest[rank * count : (rank + 1) * count]
        loss = both[:, 0] + both[:, 1].log() + largest
        loss = torch.where(counted, loss, torch.zeros_like(loss))
        if self.reduction == "none":
            return loss
        return loss.sum() if self.reduction == "sum" else loss.sum() / counted.sum()
