"""The command `graphscale`: parse the arguments, run a sub-command, report errors.

In: command-line arguments. Out: an exit status. All errors are reported here and nowhere else.

Exit status:
    0: done.
    1: done, but the results could not be written to standard output.
    2: the input or an option cannot be used, memory is not enough, or a package is missing.
    70: a fault of graphscale.
    130, 143, 129: interrupted by Ctrl-C, terminated, or the terminal closed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from graphscale import __version__
from graphscale.cli import accelerate, completion, grow, shrink, train
from graphscale.cli.outputs import Outputs
from graphscale.cli.terminal import Terminal, UnshownError, print_any_text
from graphscale.core.errors import GraphScaleError
from graphscale.core.requirements import missing_package

_COMMANDS = (shrink, grow, accelerate, train, completion)
_FAULT = 70  # EX_SOFTWARE of sysexits.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    closed = _open_closed_streams()
    print_any_text()  # a name in a model may hold any character, and so may a help
    options = _parser().parse_args(arguments)
    terminal = Terminal(quiet=options.quiet, verbose=options.verbose, closed=closed)
    outputs = Outputs()
    try:
        with _signals_raise(), _warnings_are_notes(terminal):
            options.run(options, terminal, outputs)
        return 0
    except BrokenPipeError:  # the program that reads our output has ended, as head does
        terminal.discard_output()
        return 0
    except UnshownError as error:
        terminal.discard_output()
        return _complain(terminal, f"{error}; {outputs.written()}", status=1)
    except GraphScaleError as error:
        return _complain(terminal, str(error), status=2)
    except ImportError as error:
        missing = missing_package(error, f"graphscale {options.command}")
        if missing is error:
            return _report_fault(terminal, error)
        return _complain(terminal, str(missing), status=2)
    except OSError as error:
        if error.filename is None:
            return _report_fault(terminal, error)
        return _complain(
            terminal,
            f"{error.filename}: cannot be used ({error.strerror}); give another path, or make it "
            "readable",
            status=2,
        )
    except MemoryError:
        return _complain(
            terminal,
            "not enough memory for this model; close other programs, or use a larger machine",
            status=2,
        )
    except _TerminatedError as end:
        status = 128 + end.number
        return _complain(terminal, f"terminated; {outputs.written()}", status=status)
    except KeyboardInterrupt:
        return _complain(terminal, f"interrupted; {outputs.written()}", status=130)
    except Exception as error:
        return _report_fault(terminal, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphscale",
        description="Kernel rescaling: train a shrunken network, then grow it into the target.",
    )
    parser.add_argument("--version", action="version", version=f"graphscale {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    amount = common.add_mutually_exclusive_group()
    amount.add_argument("--quiet", action="store_true", help="say nothing but errors")
    amount.add_argument(
        "--verbose", action="store_true", help="say each step, and where an error comes from"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in _COMMANDS:
        command.add_parser(commands, common)
    return parser


def _complain(terminal: Terminal, text: str, status: int) -> int:
    if terminal.verbose:
        terminal.say(traceback.format_exc().rstrip())
    terminal.complain(text)
    return status


def _report_fault(terminal: Terminal, error: Exception) -> int:
    """Report an exception that is no GraphScaleError: what and where, and whom to tell."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    terminal.complain(
        f"internal error: {type(error).__name__}: {error} "
        f"({Path(where.filename).name}, line {where.lineno})"
    )
    if terminal.verbose:
        terminal.say("".join(traceback.format_exception(error)).rstrip())
    terminal.complain(
        "this is a fault of graphscale, not of your input; please report it to its developers with "
        f"what the same command prints with --verbose, and its version, {__version__}"
    )
    return _FAULT


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP; like Ctrl-C, it is not caught by `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP raise as SIGINT does, so that temporary files go.

    What a signal's handler raises may be lost: Python ignores it in a destructor, and an import
    makes an ImportError of it. The context raises it again at its end.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise _interruption(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in usual:  # not if nohup set a handler
                before[number] = signal.signal(number, end)
    try:
        yield
    except GraphScaleError:  # says more than that a signal came
        raise
    except Exception as error:
        if received:
            raise _interruption(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise _interruption(received[0])


def _interruption(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else _TerminatedError(number)


@contextlib.contextmanager
def _warnings_are_notes(terminal: Terminal) -> Iterator[None]:
    """A context in which graphscale's own warnings are printed as notes, each in one line."""
    package = Path(__file__).parents[1]
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning and Path(filename).is_relative_to(package):
            terminal.note(str(message))
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _open_closed_streams() -> bool:
    """Open /dev/null for standard streams that are closed; returns whether standard output was.

    Otherwise the next file that is opened would get the stream's number, and messages would be
    written into a model.
    """
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            closed.append(number)
    if 1 in closed:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    if 2 in closed:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return 1 in closed
