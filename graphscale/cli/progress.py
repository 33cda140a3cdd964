"""Show the progress of long work: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable

from rich import progress
from rich.console import Console

_SECONDS = 5.0  # between two lines


class Progress:
    """A context that shows progress. It yields a function to call with (amount done, total).

    Args:
        what: The work, such as 'measuring'.
        unit: What is counted, such as 'measurements'; None for bytes.
        shown: With False nothing is printed.
    """

    def __init__(self, what: str, unit: str | None = None, shown: bool = True) -> None:
        self._what = what
        self._unit = unit
        self._shown = shown
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)
        self._counts = (0, 0)
        self._started = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Callable[[int, int], None]:
        """Start the bar, or the thread that prints lines; returns the function to call."""
        self._started = time.monotonic()
        if self._shown and sys.stderr.isatty():
            counts: list[progress.ProgressColumn] = [progress.DownloadColumn()]
            if self._unit:
                counts = [progress.MofNCompleteColumn(), progress.TextColumn(self._unit)]
            columns = [progress.TextColumn(self._what), progress.BarColumn(), *counts]
            console = Console(stderr=True)
            self._bar = progress.Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self._what, total=None)
            self._bar.start()
        elif self._shown:
            threading.Thread(target=self._print_lines, daemon=True).start()
        return self._update

    def __exit__(self, *_: object) -> None:
        """Remove the bar, or stop the thread."""
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()

    def _update(self, done: int, total: int) -> None:
        self._counts = (done, total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)

    def _print_lines(self) -> None:
        while not self._ended.wait(_SECONDS):
            with contextlib.suppress(OSError, ValueError):
                print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        done, total = self._counts
        seconds = f"{time.monotonic() - self._started:.0f} s"
        if not total:
            return f"graphscale: {self._what}, {seconds}"
        counts = f"{done} of {total} {self._unit}"
        if not self._unit:
            counts = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        return f"graphscale: {self._what}, {counts}, {seconds}"
