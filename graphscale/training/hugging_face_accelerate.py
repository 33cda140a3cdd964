"""Growth with Hugging Face Accelerate: checkpoints from before and after growth.

The training loop is an ordinary one with a `GrowthSchedule`. Only `accelerator.save_state` and
`load_state` must know that the module changes its sizes; `keep_growth` sees to that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphscale.core.errors import GraphScaleError
from graphscale.core.files import replacing
from graphscale.training.growth_schedule import GrowthSchedule

_FILE = "graphscale_growth.json"


def keep_growth(accelerator: Any, schedule: GrowthSchedule) -> None:
    """Let `accelerator.save_state` save the schedule, and `load_state` grow the module first.

    Accelerate loads weights before anything else, and weights from after growth do not fit the
    module that `shrink` returns. A `GrowthLR` needs `accelerator.register_for_checkpointing`.

    Args:
        accelerator: An `accelerate.Accelerator`.
        schedule: The schedule that grows the module.

    Raises:
        GraphScaleError: by `load_state`, if the state was saved without `keep_growth`.

    Example:
        >>> from accelerate import Accelerator                                    # doctest: +SKIP
        >>> accelerator = Accelerator()                                           # doctest: +SKIP
        >>> model = graphscale.shrink(target, example)                            # doctest: +SKIP
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.05)              # doctest: +SKIP
        >>> model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        ...                                                                       # doctest: +SKIP
        >>> schedule = GrowthSchedule(model, total=10, grow_at=7, optimizers=optimizer)
        ...                                                                       # doctest: +SKIP
        >>> rates = GrowthLR(schedule, optimizer, after="restart")                # doctest: +SKIP
        >>> keep_growth(accelerator, schedule)                                    # doctest: +SKIP
        >>> accelerator.register_for_checkpointing(rates)                         # doctest: +SKIP
        >>> for epoch in schedule:                                                # doctest: +SKIP
        ...     for images, labels in loader:
        ...         images = resize_batch(images, schedule.image_size)
        ...         loss = criterion(model(images), labels)
        ...         accelerator.backward(loss)
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...     schedule.step()
        ...     rates.step()
        ...     accelerator.save_state(folder)
    """

    def save(models: Sequence, weights: Sequence, folder: str) -> None:
        if accelerator.is_main_process:
            with replacing(Path(folder) / _FILE) as (file,):
                file.write(json.dumps(schedule.state_dict()).encode())

    def load(models: Sequence, folder: str) -> None:
        path = Path(folder) / _FILE
        if not path.is_file():
            raise GraphScaleError(
                f"{folder}: holds no state of growth ({_FILE}); load a state that was saved after "
                "keep_growth"
            )
        schedule.load_state_dict(json.loads(path.read_text()))

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
