"""`GrowthLR`: the learning rate before and after growth.

In: a `GrowthSchedule`, an optimizer and optionally a torch scheduler. Out: a scheduler with torch's
interface, which is stepped after the growth schedule. After growth the rate goes on as scheduled or
starts again at its initial height, with or without a warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graphscale.core.arguments import instance, one_of, real_number, whole_number, wrong
from graphscale.training.growth_schedule import GrowthSchedule
from graphscale.training.optimizer_state import plain_optimizer

Decay = Callable[[float], float]

DECAYS: dict[str, Decay] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "steps": lambda progress: 1.0 if progress < 1 / 3 else 0.2 if progress < 2 / 3 else 0.02,
}


class GrowthLR(LRScheduler):
    """A learning rate scheduler that knows when the network grows.

    Before growth it steps `scheduler`. After growth it goes on so, or takes over the rate itself.
    While the growth schedule holds the rate (`extra_until_drop`), the rate does not change.

    Args:
        schedule: The growth schedule; call its `step` before this one's.
        optimizer: The optimizer whose rates are set.
        scheduler: A torch or timm scheduler for the rate until growth (and after it, if `after` is
            'scheduled'); with None the rate is constant.
        after: 'scheduled' goes on with `scheduler`; 'restart' sets the rate to its initial value
            when the network becomes the target, and lets it decay over the rest of the training.
        height: Rate at the restart, as a share of the initial rate.
        decay: How the rate decays after the restart: 'linear' to zero, 'cosine', 'steps' (1, 0.2
            and 0.02 in thirds), 'constant', or a function from progress (0 to 1) to a factor.
        warmup: For how many units after each growth the rate rises linearly to its height.

    Raises:
        GraphScaleError: an argument is none that is named here.

    Example:
        >>> import torch, graphscale
        >>> from graphscale.training import GrowthLR, GrowthSchedule
        >>> target = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU())
        >>> model = graphscale.shrink(target, torch.randn(2, 3, 32, 32))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> schedule = GrowthSchedule(model, total=4, grow_at=2, optimizers=optimizer)
        >>> rates = GrowthLR(schedule, optimizer, after="restart", height=0.5)
        >>> heights = []
        >>> for _ in schedule:
        ...     heights += rates.get_last_lr()
        ...     _ = schedule.step()
        ...     rates.step()
        >>> heights
        [0.1, 0.1, 0.05, 0.025]
    """

    def __init__(
        self,
        schedule: GrowthSchedule,
        optimizer: Optimizer,
        scheduler: Any = None,
        *,
        after: str = "scheduled",
        height: float = 1.0,
        decay: str | Decay = "linear",
        warmup: int = 0,
    ) -> None:
        # LRScheduler's own __init__ is not called: it would step the rate and wrap the optimizer.
        self.schedule = instance("schedule", schedule, GrowthSchedule, "a GrowthSchedule")
        self.optimizer = plain_optimizer(optimizer)
        if not (scheduler is None or hasattr(scheduler, "step")):
            raise wrong("scheduler", scheduler, "a learning rate scheduler of torch or timm")
        self.scheduler = scheduler
        self.after = one_of("after", after, ("scheduled", "restart"))
        self.height = real_number("height", height, 0)
        if not callable(decay):
            decay = DECAYS[one_of("decay", decay, tuple(DECAYS))]
        self.decay: Decay = decay
        self.warmup = whole_number("warmup", warmup, 0)
        groups = self.optimizer.param_groups
        self.base_lrs = [float(group.get("initial_lr", group["lr"])) for group in groups]
        self.last_epoch = 0
        # The rates without the warm-up's factor. Torch's schedulers mostly compute the next rate
        # from the optimizer's present one, so that must be put back before they step.
        self._planned = [float(group["lr"]) for group in groups]
        self._last_lr = list(self._planned)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Set the rates of the next unit; the arguments are passed to the scheduler's `step`."""
        self.last_epoch += 1
        self._step("step", *args, **kwargs)

    def step_update(self, *args: Any, **kwargs: Any) -> None:
        """Call after a batch with timm's schedulers, which have this method besides `step`."""
        self._step("step_update", *args, **kwargs)

    def refresh(self) -> None:
        """Set the rates that the growth schedule wants now, without a step of the scheduler.

        For trainers that step schedulers before the module grows.
        """
        groups = self.optimizer.param_groups
        since = self.schedule.since_growth
        if self._restarted() and not self.schedule.holding:
            left = self.schedule.total - self.schedule.grown_at[-1]
            factor = self.height * self.decay(min(1.0, (since or 0) / left))
            self._planned = [base * factor for base in self.base_lrs]
        rise = 1.0 if since is None else min(1.0, (since + 1) / (self.warmup + 1))
        for group, rate in zip(groups, self._planned):
            self._put(group, rate * rise)
        self._last_lr = [float(group["lr"]) for group in groups]

    def get_last_lr(self) -> list[float]:
        """The rates of the groups, as they were set last."""
        return list(self._last_lr)

    def get_lr(self) -> list[float]:
        """The same as `get_last_lr`; torch's interface has both."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The state, which includes the torch scheduler's."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "planned": list(self._planned),
            "last_lr": list(self._last_lr),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; the optimizer's own state dict holds its rates."""
        self.last_epoch = state["last_epoch"]
        self.base_lrs = list(state["base_lrs"])
        self._planned = list(state["planned"])
        self._last_lr = list(state["last_lr"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])

    def _step(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self.schedule.holding:
            return
        if not self._restarted():
            groups = self.optimizer.param_groups
            for group, rate in zip(groups, self._planned):
                self._put(group, rate)
            if self.scheduler is not None:
                getattr(self.scheduler, method)(*args, **kwargs)
            self._planned = [float(group["lr"]) for group in groups]
        self.refresh()

    def _restarted(self) -> bool:
        return self.after == "restart" and self.schedule.grown

    @staticmethod
    def _put(group: dict, rate: float) -> None:
        if hasattr(group["lr"], "fill_"):  # a tensor, which a captured or compiled step reads
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
