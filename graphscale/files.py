"""Write files so that a full disk, an error or Ctrl-C leaves what was there before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphscale.errors import GraphScaleError


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Open a temporary file beside each of `paths`; rename all of them when the block succeeds.

    Raises:
        GraphScaleError: a folder is missing or not writable, or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        try:
            files = [stack.enter_context(_temporary(path)) for path in paths]
            yield files
            for file in files:
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.fsync(file.fileno())
            for file, path in zip(files, paths, strict=True):
                os.replace(file.name, path)
        except OSError as error:
            raise GraphScaleError(
                f"{paths[0]}: cannot be written ({error.strerror or error}); "
                "choose a folder that is writable and has enough free space"
            ) from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise IsADirectoryError(21, "it is a folder")
    prefix = f".{path.name}."
    file = tempfile.NamedTemporaryFile(prefix=prefix, dir=path.parent, delete=False)  # noqa: SIM115
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # what no flush could write, closing cannot either
            file.close()
        with contextlib.suppress(FileNotFoundError):  # renamed: it is complete
            os.unlink(file.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
