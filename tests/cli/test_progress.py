"""Progress is a bar on a terminal, and a line every few seconds elsewhere."""

from __future__ import annotations

import io
import re
import sys
import threading

import pytest

from graphscale.cli import progress
from graphscale.cli.progress import Progress


class Lines(io.StringIO):
    """Standard error that tells when a line was written."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.written = threading.Event()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


@pytest.mark.parametrize(
    ("unit", "counts", "line"),
    [
        ("measurements", (2, 5), r"graphscale: measuring, 2 of 5 measurements, \d+ s"),
        (None, (3_000_000, 12_400_000), r"graphscale: measuring, 3 of 12 MB, \d+ s"),
        ("measurements", None, r"graphscale: measuring, \d+ s"),  # nothing is known yet
    ],
)
def test_a_line(unit: str | None, counts: tuple | None, line: str, monkeypatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.001)
    shown = Lines()
    shown.written.set()
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress("measuring", unit) as update:
        if counts is not None:
            update(*counts)
        shown.truncate(shown.seek(0))
        shown.written.clear()
        assert shown.written.wait(20)
    last = shown.getvalue().splitlines()[-1]
    assert re.fullmatch(line, last), last


def test_work_that_is_done_at_once_prints_nothing(monkeypatch) -> None:
    shown = Lines()
    monkeypatch.setattr(sys, "stderr", shown)
    for visible in (True, False):
        with Progress("measuring", shown=visible) as update:
            update(1, 1)
    assert shown.getvalue() == ""


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end(monkeypatch) -> None:
    shown = Lines(terminal=True)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("measuring", "measurements") as update:
        update(2, 5)
    assert "measuring" in shown.getvalue()
    assert "2/5" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")  # the bar's line is erased


def test_a_closed_standard_error_does_not_end_the_work(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.001)
    shown = Lines()
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress("measuring") as update:
        assert shown.written.wait(20)
        shown.close()
        update(1, 2)
