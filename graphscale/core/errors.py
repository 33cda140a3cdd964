"""The one family of errors that graphscale raises for input it cannot use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class GraphScaleError(Exception):
    """Input that graphscale cannot use.

    The message is one sentence that names the file, node or tensor and ends in what to do. The
    command line prints it and exits with status 2.
    """


@contextlib.contextmanager
def about(file: object, *others: object) -> Iterator[None]:
    """A context whose errors begin with the path of the `file` that they are about.

    Passes know nodes and tensors but no files. An error that names the file or one of `others`
    already stays as it is, and so does every error where `file` is no path, as a model in memory.
    """
    try:
        yield
    except GraphScaleError as error:
        paths = [str(each) for each in (file, *others) if isinstance(each, str | os.PathLike)]
        if not isinstance(file, str | os.PathLike) or any(each in str(error) for each in paths):
            raise
        raise GraphScaleError(f"{file}: {error}") from error
