"""What a command has written so far, told from the files themselves.

A file is complete as soon as it has its name (graphscale.core.files renames it last), so whether
it has changed since the command began is the truth at every moment, also between two statements.
"""

from __future__ import annotations

from pathlib import Path

from graphscale.core.errors import GraphScaleError


class Outputs:
    """The files that a command is going to write."""

    def __init__(self) -> None:
        self._before: dict[Path, tuple[int, int] | None] = {}

    def expect(self, *paths: Path) -> None:
        """Note what stands at `paths` before they are written."""
        for path in paths:
            if not path.name:
                raise GraphScaleError(f"output {str(path)!r} is no file name; give one with -o")
            self._before[path] = _identity(path)

    def written(self) -> str:
        """Which of the files are there anew, as the end of a sentence."""
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
