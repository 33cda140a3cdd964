"""A context in which torch says nothing on standard error while it traces or exports.

The exporter warns of packages that are not installed and of its own deprecated calls, and tracing
logs the traceback of what it raises and prints the program as far as it was traced, which tells a
user nothing more. What cannot be traced is raised, as before.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from graphscale.core.quiet import quiet

# A child of one of these has a level of its own only where a user has set it.
_LOGGERS = ("torch.onnx", "torch.export", "torch._guards", "torch._subclasses.fake_tensor")


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Within the block torch's exporter and its shape inference neither warn, log nor print."""
    with quiet(_LOGGERS, logging.CRITICAL), redirect_stderr(io.StringIO()):
        yield
