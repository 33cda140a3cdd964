"""Training on many GPUs and many machines, on torch.distributed.

`DataParallel` splits the batch over ranks, and can send gradients in one bit per element; the hook
`one_bit_hook` with `OneBitState` does that for any DistributedDataParallel. `OneBitDataParallel`
and `OneBitSGD` train as fbcunn did, with AdaGrad and momentum at each parameter's home.
`ModelParallel` splits wide layers, `PipelineParallel` splits a network by stage, and
`get_full_state_dict` makes checkpoints of such networks for any number of ranks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphscale.distributed.data_parallel import DataParallel
from graphscale.distributed.one_bit_data_parallel import OneBitDataParallel
from graphscale.distributed.one_bit_hook import OneBitState, one_bit_hook
from graphscale.distributed.one_bit_sgd import OneBitSGD

if TYPE_CHECKING:
    from graphscale.distributed.full_state_dict import get_full_state_dict, set_full_state_dict
    from graphscale.distributed.model_parallel import ModelParallel
    from graphscale.distributed.pipeline_parallel import PipelineParallel

__all__ = [
    "DataParallel",
    "ModelParallel",
    "OneBitDataParallel",
    "OneBitSGD",
    "OneBitState",
    "PipelineParallel",
    "get_full_state_dict",
    "one_bit_hook",
    "set_full_state_dict",
]

# Imported when they are used: torch's tensor and pipeline parallelism take long to import.
_LATE = {
    "ModelParallel": "model_parallel",
    "PipelineParallel": "pipeline_parallel",
    "get_full_state_dict": "full_state_dict",
    "set_full_state_dict": "full_state_dict",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'graphscale.distributed' has no attribute {name!r}")
    return getattr(importlib.import_module(f"graphscale.distributed.{_LATE[name]}"), name)
