"""Where commands print: results on standard output, all else on standard error.

Standard output gets tables or one JSON object, in ASCII where its encoding is not UTF-8. Standard
error gets the progress of long work, notes and complaints, each line with the program's name.
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

_WIDTH = 140  # columns, of tables in files and pipes


class UnshownError(Exception):
    """Standard output cannot take what is to be shown; says why."""


class _Console(Console):
    """rich ends the process where the reader has left; `main` knows better how."""

    def on_broken_pipe(self) -> None:
        """Let `main` see the error."""
        raise BrokenPipeError


class Terminal:
    """Standard output and standard error, as a command sees them.

    Args:
        quiet: Only complaints, and what --json asks for, are printed.
        verbose: Steps are printed, too, and errors with their traceback.
        closed: Standard output was closed when the command began.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, closed: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._closed = closed
        self._started = time.monotonic()
        for stream in (sys.stdout, sys.stderr):  # names in a model may hold any character
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")

    @contextlib.contextmanager
    def showing(self, *, tables: bool = True) -> Iterator[Console]:
        """The console for the results; --quiet drops them where they are tables.

        Raises:
            UnshownError: standard output is closed or full.
            BrokenPipeError: its reader has left.
        """
        if self.quiet and tables:
            with open(os.devnull, "w") as nowhere:
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
        """Let what standard output could not take be forgotten; Python would try again at exit."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def working(self, what: str, unit: str | None = None) -> Progress:
        """Shows how far long work has come, in bytes or in `unit`."""
        return Progress(what, unit, shown=not self.quiet)

    def step(self, text: str) -> None:
        """Say, with --verbose, what has been done after how many seconds."""
        if self.verbose:
            self.say(f"graphscale: {time.monotonic() - self._started:.1f} s: {text}")

    def note(self, text: str) -> None:
        """Say what the user may not expect, though nothing is wrong."""
        if not self.quiet:
            self.say(f"graphscale: note: {text}")

    def complain(self, text: str) -> None:
        """Say what went wrong, in one line."""
        self.say(f"graphscale: {' '.join(text.split())}")

    def say(self, text: str) -> None:
        """Print on standard error, where anybody listens there."""
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
