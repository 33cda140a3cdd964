"""A context in which torch says nothing on standard error while it traces or exports.

The exporter warns of packages that are not installed and of its own deprecated calls, and tracing
logs the traceback of what it raises, which tells a user nothing more. What cannot be traced is
raised, as before.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# A child of one of these has a level of its own only where a user has set it.
_LOGGERS = ("torch.onnx", "torch.export", "torch._guards", "torch._subclasses.fake_tensor")


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Within the block torch's exporter and its shape inference neither warn nor log."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
