"""Training on many GPUs and many machines, on torch.distributed.

`DataParallel` splits the batch over ranks, and can send gradients in one bit per element; the hook
`one_bit_hook` with `OneBitState` does that for any DistributedDataParallel. `OneBitDataParallel`
and `OneBitSGD` train as fbcunn did, with AdaGrad and momentum at each parameter's home.
`ModelParallel` splits wide layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphscale.distributed.data_parallel import DataParallel
from graphscale.distributed.one_bit_data_parallel import OneBitDataParallel
from graphscale.distributed.one_bit_hook import OneBitState, one_bit_hook
from graphscale.distributed.one_bit_sgd import OneBitSGD

if TYPE_CHECKING:
    from graphscale.distributed.model_parallel import ModelParallel

__all__ = [
    "DataParallel",
    "ModelParallel",
    "OneBitDataParallel",
    "OneBitSGD",
    "OneBitState",
    "one_bit_hook",
]


def __getattr__(name: str) -> Any:
    """ModelParallel, imported when it is used: torch's tensor parallelism takes long to import."""
    if name != "ModelParallel":
        raise AttributeError(f"module 'graphscale.distributed' has no attribute {name!r}")
    from graphscale.distributed.model_parallel import ModelParallel

    return ModelParallel
