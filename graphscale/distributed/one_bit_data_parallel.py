"""`OneBitDataParallel`: fbcunn's container for data-parallel training with 1-bit SGD.

In: a module. Out: the module with the same parameters on every rank, and the optimizer that keeps
them so.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from graphscale.distributed.collectives import copy_from_first
from graphscale.distributed.one_bit_sgd import OneBitSGD
from graphscale.distributed.require_process_group import require_process_group


class OneBitDataParallel(nn.Module):
    """A module on every rank, trained by `OneBitSGD` (fbcunn OneBitDataParallel).

    Each rank calls it with its own images and computes its own gradients; `step` exchanges them and
    changes the parameters. `DataParallel` with gradient='onebit' is for any other optimizer.
    Parameters and buffers start as those of rank 0; later, buffers such as BatchNorm's statistics
    are each rank's own.

    Args:
        module: On the device of this rank.
        lr, momentum, min_elements, process_group: Of `OneBitSGD`; the defaults are fbcunn's.

    Attributes:
        module: The module.
        optimizer: The `OneBitSGD`, for learning rates and checkpoints.

    Raises:
        GraphScaleError: there is no process group, or a number is out of range.

    Example:
        >>> module = OneBitDataParallel(network, lr=0.01, momentum=0.9)  # doctest: +SKIP
        >>> loss(module(images), labels).backward()  # doctest: +SKIP
        >>> module.step()  # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        lr: float = 1.0,
        momentum: float = 0.0,
        min_elements: int = 20,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        require_process_group("OneBitDataParallel")
        self.module = module
        copy_from_first(module, [process_group], "OneBitDataParallel")
        self.optimizer = OneBitSGD(module.parameters(), lr, momentum, min_elements, process_group)

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the module returns."""
        return self.module(*args, **options)

    def step(self) -> None:
        """Exchange the gradients, change the parameters, and drop the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()
