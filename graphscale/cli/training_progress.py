"""Show the progress of `graphscale train`, and stop the training at a signal.

On a terminal there is a bar; everywhere a line per epoch is printed. Ctrl-C and SIGTERM let the
trainer write a checkpoint and stop.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from rich import progress
from rich.console import Console

from graphscale.cli.terminal import Terminal
from graphscale.training.run_folder import EpochRecord
from graphscale.training.train_folder import Notices
from graphscale.training.trainer import Events, Interrupted, Trainer


class TrainingProgress:
    """A context that shows a training, and yields the `Notices` for `train_folder`.

    Ctrl-C and SIGTERM stop the training after the current step. A second signal, or one before the
    training has begun, ends the command at once. Under torchrun, which sends SIGTERM to every rank
    after Ctrl-C and after the end of another rank, only the same signal twice does.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._trainer: Trainer | None = None
        self._before: dict[int, Any] = {}
        self._received = 0
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            progress.TimeRemainingColumn(),
        )
        shown = sys.stderr.isatty() and not terminal.quiet
        console = Console(stderr=True, highlight=False)
        self._bar = progress.Progress(*columns, console=console, transient=True, disable=not shown)
        self._task = self._bar.add_task("", total=None, visible=False, speed="")

    def __enter__(self) -> Notices:
        """Start the bar and install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        self._bar.start()
        events = Events(self._started, self._stepped, self._finished)
        return Notices(self._say, self._checked, events, self._set_trainer)

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Restore the signal handlers, and raise again the signal that stopped the training."""
        self._bar.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not None and issubclass(kind, Interrupted):
            self._terminal.note("the training goes on where it stopped with --resume")
            number = self._received or signal.SIGTERM  # which stopped another rank
            self._before[number](number, None)

    def _set_trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._trainer is None or self._received == number:  # nothing to save, or a second time
            self._before[number](number, frame)
        elif not self._trainer.stop:
            self._received, self._trainer.stop = number, True
        elif self._trainer.ranks.count == 1:
            self._before[number](number, frame)

    def _say(self, text: str) -> None:
        if self._terminal.quiet:
            return
        if self._bar.disable:
            self._terminal.say(text)
        else:
            self._bar.console.print(text)

    def _checked(self, done: int, total: int) -> None:
        self._bar.update(
            self._task, description="checking images", completed=done, total=total, visible=True
        )

    def _started(self, stage: int, epoch: int, size: tuple[int, int]) -> None:
        self._say(f"stage {stage + 1}: images of {size[0]}×{size[1]}, from epoch {epoch + 1} on")

    def _stepped(self, epoch: int, batch: int, batches: int) -> None:
        epochs = self._trainer.options.epochs if self._trainer is not None else 0
        self._bar.update(
            self._task,
            description=f"epoch {epoch + 1}",
            completed=epoch * batches + batch,
            total=epochs * batches,
            visible=True,
        )

    def _finished(self, record: EpochRecord) -> None:
        self._bar.update(self._task, speed=f"{record.images_per_second:.0f} images/s")
        self._say(
            f"epoch {record.epoch:3}  {record.image_size:4} px  rate {record.rate:<8.3g} loss "
            f"{record.train_loss:.3f}  accuracy {record.accuracy:.1%}  "
            f"{record.images_per_second:.0f} images/s  {record.seconds:.0f} s"
        )
