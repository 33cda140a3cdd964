"""Growth in Lightning: a callback.

In: a LightningModule that holds a shrunk network. Out: the network is grown at the start of the
right epoch of `trainer.fit`. The callback makes a `GrowthSchedule`, and lets `fit` resume from
checkpoints from before and after growth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.training.growth_lr import Decay, GrowthLR
from graphscale.training.growth_schedule import GrowthSchedule, When
from graphscale.training.growth_stages import GrowthStage
from graphscale.training.image_size import SharedImageSize

try:
    from lightning import pytorch as pl
    from lightning.pytorch.callbacks import WeightAveraging
except ImportError as error:
    raise GraphScaleError(
        f"GrowthCallback needs lightning ({error}); pip install lightning"
    ) from None


class GrowthCallback(pl.Callback):
    """Grows the network of a LightningModule during `trainer.fit`.

    Times are counted in epochs. The optimizers, Lightning's learning rate schedulers,
    WeightAveraging callbacks and the DistributedDataParallel of strategy 'ddp' are adapted to the
    grown network. `fit(ckpt_path=...)` resumes from checkpoints from before and after growth; give
    it a LightningModule with the network as `shrink` returned it.

    Args:
        network: Attribute path of the shrunk network in the LightningModule, such as 'model'.
        grow_at, later, higher_is_better, shared_size, options: As for `GrowthSchedule`.
        total: Number of epochs; by default the trainer's `max_epochs`.
        monitor: Name of the logged validation score, for `grow_at=Plateau(...)`.
        after, height, decay, warmup: As for `GrowthLR`, which is put around every scheduler that
            `configure_optimizers` returns.
        resize_inputs: Resize the images that the network is given, so that the data need not
            change. With False, batches must have the size `callback.schedule.image_size`.

    Attributes:
        schedule: The `GrowthSchedule`, from `setup` on.

    Raises:
        GraphScaleError: by `trainer.fit`, if the network is not found or has no plan, the number of
            epochs is unknown, the score is not logged, or the strategy spawns processes.

    Example:
        >>> from lightning.pytorch import Trainer                                 # doctest: +SKIP
        >>> from graphscale.training.lightning import GrowthCallback              # doctest: +SKIP
        >>> module.model = graphscale.shrink(module.model, example)               # doctest: +SKIP
        >>> growth = GrowthCallback("model", grow_at=0.7, after="restart")        # doctest: +SKIP
        >>> Trainer(max_epochs=10, callbacks=growth).fit(module, loader)          # doctest: +SKIP
    """

    def __init__(
        self,
        network: str = "model",
        *,
        grow_at: When | Sequence[When],
        later: Sequence[GrowthStage] = (),
        total: int | None = None,
        monitor: str | None = None,
        higher_is_better: bool = True,
        shared_size: SharedImageSize | None = None,
        after: str = "scheduled",
        height: float = 1.0,
        decay: str | Decay = "linear",
        warmup: int = 0,
        resize_inputs: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.network = network
        self.total = total
        self.monitor = monitor
        self.schedule: GrowthSchedule | None = None
        self._schedule_options = {
            **options,
            "grow_at": grow_at,
            "later": later,
            "higher_is_better": higher_is_better,
            "shared_size": shared_size,
            "resize_inputs": resize_inputs,
        }
        self._rate_options = {"after": after, "height": height, "decay": decay, "warmup": warmup}
        self._rates: list[GrowthLR] = []
        self._score: float | None = None
        self._loaded: Callable | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the schedule, and a hook that grows the module before a checkpoint is loaded."""
        if stage != "fit":
            return
        # With such strategies Lightning finally loads the trained weights into the module of the
        # main process. That module has not grown, so loading would fail after all the training.
        if "MultiProcessing" in type(trainer.strategy.launcher).__name__:
            raise GraphScaleError(
                "GrowthCallback does not work with strategies that spawn or fork processes, such "
                "as 'ddp_spawn'; use strategy='ddp'"
            )
        if self.schedule is None:
            total = self.total if self.total is not None else trainer.max_epochs
            if total is None or total < 1:
                raise GraphScaleError(
                    "the trainer has no max_epochs; give GrowthCallback the total number of epochs"
                )
            self.schedule = GrowthSchedule(
                self._network_of(pl_module), total=total, **self._schedule_options
            )
        if self._loaded is None:
            self._loaded = pl_module.on_load_checkpoint

            # Lightning loads the weights before it loads callbacks; this hook comes before both.
            def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
                state = checkpoint.get("callbacks", {}).get(self.state_key)
                if state is not None and self.schedule is not None:
                    self.schedule.averages = self._averages(trainer)
                    self.load_state_dict(state)
                if self._loaded is not None:
                    self._loaded(checkpoint)

            pl_module.on_load_checkpoint = on_load_checkpoint

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the hook that `setup` made."""
        if self._loaded is not None:
            vars(pl_module).pop("on_load_checkpoint", None)
            self._loaded = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the schedule the optimizers, and put `GrowthLR` around the rate schedulers."""
        schedule = self._made()
        schedule.optimizers = list(trainer.optimizers)
        schedule.averages = self._averages(trainer)
        self._rates = []
        for config in trainer.lr_scheduler_configs:
            if not isinstance(config.scheduler, GrowthLR):
                optimizer = config.scheduler.optimizer
                config.scheduler = GrowthLR(
                    schedule, optimizer, config.scheduler, **self._rate_options
                )
            self._rates.append(config.scheduler)
        if not self._rates:
            self._rates = [
                GrowthLR(schedule, optimizer, **self._rate_options)
                for optimizer in trainer.optimizers
            ]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step the schedule for the epochs that are done; it grows the network when it is time."""
        schedule = self._made()
        while schedule.position < trainer.current_epoch:
            score, self._score = self._score, None
            schedule.step(score)
        for rates in self._rates:
            rates.refresh()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the score for the schedule; Lightning writes checkpoints after this call."""
        if self.monitor is not None and not trainer.sanity_checking:
            if self.monitor not in trainer.callback_metrics:
                raise GraphScaleError(
                    f"GrowthCallback: {self.monitor!r} is not logged; log it in validation_step, "
                    f"or monitor one of {', '.join(trainer.callback_metrics) or 'those logged'}"
                )
            self._score = float(trainer.callback_metrics[self.monitor])

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {"schedule": schedule, "score": self._score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; grows the network if it had grown by then."""
        self._score = state_dict["score"]
        if self.schedule is not None and state_dict["schedule"] is not None:
            self.schedule.load_state_dict(state_dict["schedule"])

    def _made(self) -> GrowthSchedule:
        if self.schedule is None:
            raise GraphScaleError("GrowthCallback has no schedule; give it to a Trainer for fit")
        return self.schedule

    def _network_of(self, pl_module: nn.Module) -> nn.Module:
        try:
            return pl_module.get_submodule(self.network)
        except AttributeError:
            raise GraphScaleError(
                f"{type(pl_module).__name__} has no module {self.network!r}; give GrowthCallback "
                "the path of the shrunk network"
            ) from None

    def _averages(self, trainer: pl.Trainer) -> list[nn.Module]:
        """The networks that WeightAveraging callbacks average."""
        found = []
        for callback in trainer.callbacks:
            average = getattr(callback, "_average_model", None)
            if isinstance(callback, WeightAveraging) and average is not None:
                found.append(self._network_of(average.module))
        return found
