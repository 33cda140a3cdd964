"""Run a page of the documentation: what its code blocks do, in their order, in one folder.

In: a Markdown page. Out: nothing, or an AssertionError that names the page, the line and the
difference. What a fenced block means:

- `python`: is executed; all blocks of a page share their names.
- `python title="file.py"`: is written into that file, not executed.
- `console`: lines that begin with `$ ` are run by a shell, one after another; lines below a command
  are what it prints.
- `text` straight after a `python` block: what that block prints.
- every other language (`sh`, `text` elsewhere): only for reading.

In what is printed, `...` stands for anything and runs of blanks count as one blank.
"""

from __future__ import annotations

import doctest
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S
)
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Packages that no extra of graphscale installs (`make dev` installs timm beside them); a page that
# uses one that is missing is run as far as it goes.
OPTIONAL = {"timm", "torchvision"}


@dataclass
class Block:
    """A fenced block: its language, the file that it is to be written to, its line, its text."""

    language: str
    title: str | None
    line: int
    text: str


class MissingPackageError(Exception):
    """The rest of a page needs a package that is not installed."""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return [
        Block(
            match["language"],
            match["title"],
            page.count("\n", 0, match.start("text")) + 1,
            match["text"],
        )
        for match in _FENCE.finditer(page)
    ]


def run_page(path: Path, folder: Path) -> None:
    """Run the blocks of the page `path` with `folder` as the working directory."""
    found = blocks(path.read_text())
    names: dict[str, object] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block, following in zip_longest(found, found[1:]):
            where = f"{path.relative_to(ROOT)}, line {block.line}"
            if block.title is not None:
                Path(block.title).write_text(block.text)
            elif block.language == "console":
                _run_console(block, where)
            elif block.language == "python":
                printed = _run_python(block, path, names)
                if following is not None and following.language == "text":
                    _compare(following.text, printed, where)
    finally:
        os.chdir(before)


def _run_python(block: Block, path: Path, names: dict[str, object]) -> str:
    """What the block prints. Empty lines in front give a traceback the page's line numbers."""
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(code, names)
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            raise MissingPackageError(error.name) from None
        raise
    return printed.getvalue()


def _run_console(block: Block, where: str) -> None:
    for step in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        lines = step.splitlines()
        length = 1
        while lines[length - 1].endswith("\\"):
            length += 1
        command, expected = "\n".join(lines[:length]), "\n".join(lines[length:])
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, env=_environment()
        )
        assert done.returncode == 0, f"{where}: $ {command}\n{done.stdout}{done.stderr}"
        if expected.strip():
            _compare(expected, done.stdout, f"{where}: $ {command}")


def _environment() -> dict[str, str]:
    """An environment whose `graphscale` and `python` are those that run the tests."""
    programs = Path("programs").absolute()
    programs.mkdir(exist_ok=True)
    for name, words in (("graphscale", "-P -m graphscale"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(0o755)
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(places),
    }


def _compare(expected: str, printed: str, where: str) -> None:
    checker = doctest.OutputChecker()
    example = doctest.Example("", expected.rstrip() + "\n")
    same = checker.check_output(example.want, printed.rstrip() + "\n", _OPTIONS)
    assert same, f"{where}\n" + checker.output_difference(example, printed, _OPTIONS)
