"""Keep track of the files that a command writes, to say after an interruption which are complete.

graphscale.core.files writes a file under a temporary name and renames it at the end. So a file is
complete if and only if the file under its final name has changed since the command began.
"""

from __future__ import annotations

import os
from pathlib import Path

from graphscale.core.errors import GraphScaleError


class Outputs:
    """The files that a command is going to write."""

    def __init__(self) -> None:
        self._before: dict[Path, tuple[int, int] | None] = {}

    def expect(self, *paths: Path) -> None:
        """Remember the present state of the files at `paths`, before they are written.

        Raises:
            GraphScaleError: a path is no file name.
        """
        for path in paths:
            if not path.name:
                raise GraphScaleError(f"output {str(path)!r} is no file name; give one with -o")
            self._before[path] = _identity(path)

    def keep_apart(self, *inputs: str | os.PathLike | None) -> None:
        """Refuse to write a file that the command reads; None stands for no file.

        Raises:
            GraphScaleError: one of the expected files is one of `inputs`, by whatever name.
        """
        for path, before in self._before.items():
            for given in inputs:
                if given is None or before is None or not os.path.exists(given):
                    continue
                if os.path.samefile(path, given):
                    raise GraphScaleError(
                        f"{path} would be written, but it is read, too, and would be lost; give "
                        "another name with -o"
                    )

    def written(self) -> str:
        """Which of the files have been written, as the end of a sentence."""
        done = [path for path, before in self._before.items() if _identity(path) != before]
        if not done:
            return "nothing was written"
        left = [path for path in self._before if path not in done and path.suffix != ".data"]
        text = f"{_names(done)} {'is' if len(done) == 1 else 'are'} written and complete"
        return f"{text}, {_names(left)} not" if left else text


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _names(paths: list[Path]) -> str:
    return " and ".join(map(str, paths))
