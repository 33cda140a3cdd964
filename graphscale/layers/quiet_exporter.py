"""A context in which torch's ONNX exporter says nothing on standard error.

The exporter warns of packages that are not installed and of its own deprecated calls, which tells a
user nothing about the module. What it cannot export it raises, as before.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within the block torch's exporter neither warns nor logs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch._guards")]
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
