"""Read and write regular files only, and replace a file only when the new one is complete.

A full disk, an error or Ctrl-C leaves the old file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphscale.core.errors import GraphScaleError


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Open a temporary file beside each of `paths`; rename all of them when the block succeeds.

    Raises:
        GraphScaleError: a folder is missing or not writable, or the disk is full.
    """
    paths = tuple(map(_without_links, paths))  # links stay links
    with _refusals(paths[0]), contextlib.ExitStack() as stack:
        files = [stack.enter_context(_temporary(path)) for path in paths]
        yield files
        for file in files:
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        for file, path in zip(files, paths, strict=True):
            os.replace(file.name, path)


@contextlib.contextmanager
def locked(path: Path, max_seconds: float = 10.0) -> Iterator[bool]:
    """Lock `path` against other processes that lock it; yields whether that succeeded.

    The lock is on a file of its own, `path`.lock, because `replacing` puts a new file in the place
    of `path`. The block also runs without the lock: after `max_seconds` of waiting, and where no
    lock can be had, as in a folder that is not writable.
    """
    number = None
    with contextlib.suppress(OSError):  # never waits for a pipe of that name
        number = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    if number is None:
        yield False
        return
    try:
        yield _lock(number, max_seconds)
    finally:
        with contextlib.suppress(OSError):  # a child of a fork may have the file open, too
            fcntl.flock(number, fcntl.LOCK_UN)
        os.close(number)


def _lock(number: int, max_seconds: float) -> bool:
    end = time.monotonic() + max_seconds
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return False


def check_regular(path: Path) -> None:
    """Raise OSError for a pipe, a device or a folder: reading one may wait or go on for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no regular file")


def check_writable(path: Path) -> None:
    """Raise now what `replacing` would raise later, so that no work is lost."""
    path = _without_links(path)
    with _refusals(path), _temporary(path):
        pass


def _without_links(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a null character, or half of a surrogate pair
        raise GraphScaleError(f"{str(path)!r} is no path ({error}); give another") from None


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a GraphScaleError about `path`."""
    try:
        yield
    except OSError as error:
        raise GraphScaleError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "choose a folder that is writable and has enough free space"
        ) from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, which is removed after the block unless it was renamed."""
    if path.exists():
        if not path.is_file():  # renaming would put a file in the place of a device or a folder
            raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no file")
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "the file that is there is write-protected")
    prefix = f".{path.name}."
    file = tempfile.NamedTemporaryFile(prefix=prefix, dir=path.parent, delete=False)  # noqa: SIM115
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # closing flushes again: a full disk was reported before
            file.close()
        with contextlib.suppress(FileNotFoundError):  # a complete file has been renamed
            os.unlink(file.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
