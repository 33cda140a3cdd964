"""`DataParallel`: the same module on every rank, each with its own share of the batch.

In: a module. Out: torch's DistributedDataParallel around it, with gradients averaged densely or in
one bit per element.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.one_bit_hook import OneBitState, one_bit_hook
from graphscale.distributed.require_process_group import require_process_group

GRADIENTS = ("mean", "onebit")


class DataParallel(DistributedDataParallel):
    """DistributedDataParallel with a choice of how gradients are sent (fbcunn DataParallel).

    Every rank calls it with its own images, and has the same parameters after every step. All that
    DistributedDataParallel can do stays: no_sync, join, process groups, `graphscale.grow_`.

    Args:
        module: On the device of this rank.
        gradient: 'mean' averages dense gradients; 'onebit' sends one bit per element, with
            `OneBitState` and `one_bit_hook`.
        warm_up_steps, min_elements, grad_scaler: Of `OneBitState`, for 'onebit'.
        options: Further arguments of DistributedDataParallel.

    Attributes:
        one_bit: The `OneBitState`, whose residuals belong into a checkpoint; None for 'mean'.

    Raises:
        GraphScaleError: there is no process group, `gradient` is unknown, or 'onebit' is given with
            mixed_precision.

    Example:
        >>> torch.distributed.init_process_group("gloo")  # doctest: +SKIP
        >>> module = DataParallel(network, gradient="onebit")  # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Module,
        gradient: str = "mean",
        *,
        warm_up_steps: int = 1000,
        min_elements: int = 4096,
        grad_scaler: torch.amp.GradScaler | None = None,
        **options: Any,
    ) -> None:
        if gradient not in GRADIENTS:
            raise GraphScaleError(
                f"DataParallel: unknown gradient {gradient!r}; use {' or '.join(GRADIENTS)}"
            )
        if gradient == "onebit" and options.get("mixed_precision") is not None:
            raise GraphScaleError(
                "DataParallel: mixed_precision sends gradients by a hook of torch's own, so that "
                "'onebit' cannot; use torch.autocast"
            )
        require_process_group("DataParallel")
        super().__init__(module, **options)
        self.one_bit: OneBitState | None = None
        if gradient == "onebit":
            self.one_bit = OneBitState(
                self,
                warm_up_steps=warm_up_steps,
                min_elements=min_elements,
                grad_scaler=grad_scaler,
            )
            self.register_comm_hook(self.one_bit, one_bit_hook)
