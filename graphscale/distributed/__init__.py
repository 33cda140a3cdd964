"""Training on many GPUs and many machines, on torch.distributed.

`DataParallel` splits the batch over ranks, and can send gradients in one bit per element; the hook
`one_bit_hook` with `OneBitState` does that for any DistributedDataParallel. `OneBitDataParallel`
and `OneBitSGD` train as fbcunn did, with AdaGrad and momentum at each parameter's home.
"""

from graphscale.distributed.data_parallel import DataParallel
from graphscale.distributed.one_bit_data_parallel import OneBitDataParallel
from graphscale.distributed.one_bit_hook import OneBitState, one_bit_hook
from graphscale.distributed.one_bit_sgd import OneBitSGD

__all__ = ["DataParallel", "OneBitDataParallel", "OneBitSGD", "OneBitState", "one_bit_hook"]
