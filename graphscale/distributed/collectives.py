"""Collectives on single tensors, under the names that they have in this version of torch."""

from __future__ import annotations

import torch.distributed as dist

# torch 2.13 renamed them.
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
