"""`require_process_group`: the error of a container that is made outside torch.distributed."""

from __future__ import annotations

import torch.distributed as dist

from graphscale.core.errors import GraphScaleError


def require_process_group(container: str) -> None:
    """Raise GraphScaleError, naming `container`, where torch.distributed is not initialised."""
    if not (dist.is_available() and dist.is_initialized()):
        raise GraphScaleError(
            f"{container}: torch.distributed has no process group; start the script by torchrun, "
            "and call torch.distributed.init_process_group first"
        )
