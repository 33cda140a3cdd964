"""Results on standard output, the rest on standard error, and streams that are closed or full."""

from __future__ import annotations

import errno
import io
import re
import sys

import pytest

from graphscale.cli.terminal import Terminal, UnshownError, print_any_text


def test_what_is_said_where(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.showing() as console:
        console.print("a table")
    terminal.step("hidden")
    terminal.note("rows are shared")
    terminal.complain("bad:\n  the  file")
    out, err = capsys.readouterr()
    assert out == "a table\n"
    assert err == "graphscale: note: rows are shared\ngraphscale: bad: the file\n"


def test_verbose_tells_each_step_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(verbose=True).step("read it")
    assert re.fullmatch(r"graphscale: 0\.\d s: read it\n", capsys.readouterr().err)


def test_quiet_prints_errors_and_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True)
    with terminal.showing() as console:
        console.print("a table")
    with terminal.showing(tables=False) as console:
        console.print_json("[1]", indent=None)
    terminal.note("unexpected")
    terminal.complain("bad")
    assert capsys.readouterr() == ("[1]\n", "graphscale: bad\n")


def test_quiet_takes_names_that_are_no_utf_8() -> None:
    with Terminal(quiet=True).showing() as console:
        console.print("written \udcff.onnx")


def test_tables_in_a_pipe_are_wide(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal().showing() as console:
        assert console.width == 140


def test_names_that_the_encoding_lacks_are_escaped(monkeypatch) -> None:
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stderr", file)
    print_any_text()
    Terminal().complain("layer 'schön'")
    file.flush()
    assert file.buffer.getvalue() == b"graphscale: layer 'sch\\xf6n'\n"


def test_a_closed_standard_output() -> None:
    with pytest.raises(UnshownError, match="is closed"), Terminal(closed=True).showing():
        raise AssertionError
    with Terminal(quiet=True, closed=True).showing() as console:  # nothing is to be shown
        console.print("a table")


class Full(io.StringIO):
    """A file on a full disk, or the pipe of a program that has ended."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.error = OSError(number, "No space left on device")

    def write(self, text: str) -> int:
        raise self.error


def test_a_full_disk_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full(errno.ENOSPC))
    with (
        pytest.raises(UnshownError, match=r"cannot be written \(No space left on device\)"),
        Terminal().showing() as console,
    ):
        console.print("a table")


def test_a_reader_that_has_ended_is_left_to_main(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full(errno.EPIPE))
    with pytest.raises(BrokenPipeError), Terminal().showing() as console:
        console.print("a table")


def test_errors_of_standard_error_are_ignored(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full(errno.EPIPE))
    Terminal().complain("bad")
