"""Printing for commands: results go to standard output, everything else to standard error.

Standard output gets tables or one JSON object, in ASCII if its encoding is not UTF-8. Standard
error gets progress, notes and error messages.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator

from rich.console import Console

from graphscale.cli.progress import Progress

_WIDTH = 140  # columns of tables in files and pipes


def print_any_text() -> None:
    """Let the standard streams print characters that their encoding lacks, as \\u2026."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class UnshownError(Exception):
    """The results cannot be written to standard output; the text says why."""


class _Console(Console):
    """A console that raises if the reader of a pipe has ended; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Raise the error, which `main` handles."""
        raise BrokenPipeError


class Terminal:
    """Standard output and standard error, as a command sees them.

    Args:
        quiet: Print only error messages, and the object of --json.
        verbose: Also print each step, and the traceback of an error.
        closed: Whether standard output was closed when the command began.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, closed: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._closed = closed
        self._started = time.monotonic()

    @contextlib.contextmanager
    def showing(self, *, tables: bool = True) -> Iterator[Console]:
        """A context with the console for the results; --quiet suppresses tables, but no JSON.

        Raises:
            UnshownError: standard output is closed or full.
            BrokenPipeError: the program that reads standard output has ended.
        """
        if self.quiet and tables:
            with open(os.devnull, "w", errors="backslashreplace") as nowhere:
                yield Console(file=nowhere)
            return
        if self._closed:
            raise UnshownError("standard output is closed, so nothing can be shown")
        width = None if sys.stdout.isatty() else _WIDTH
        try:
            yield _Console(highlight=False, width=width)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnshownError(f"standard output cannot be written ({reason})") from None

    def discard_output(self) -> None:
        """Discard what could not be written to standard output, or Python would try it at exit."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def working(self, what: str, unit: str | None = None) -> Progress:
        """A context that shows the progress of the work `what`, in bytes or in `unit`."""
        return Progress(what, unit, shown=not self.quiet)

    def step(self, text: str) -> None:
        """With --verbose, print what has been done, and the seconds since the start."""
        if self.verbose:
            self.say(f"graphscale: {time.monotonic() - self._started:.1f} s: {text}")

    def note(self, text: str) -> None:
        """Print something that the user may not expect, though it is no error."""
        if not self.quiet:
            self.say(f"graphscale: note: {text}")

    def complain(self, text: str) -> None:
        """Print an error message, in one line."""
        self.say(f"graphscale: {' '.join(text.split())}")

    def say(self, text: str) -> None:
        """Print on standard error; errors in doing so are ignored."""
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
