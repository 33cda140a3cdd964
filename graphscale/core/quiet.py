"""A context in which a library says nothing on standard error: neither warnings nor its log.

What a library warns of and logs while it reads, traces or exports repeats the errors that it raises
or tells a user nothing about the model. `quiet_reading` is that for onnx and onnx-ir;
`layers.quiet_tracing` for torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def quiet(loggers: Sequence[str], level: int) -> Iterator[None]:
    """Within the block nothing warns, and loggers of these names log nothing below `level`."""
    named = [logging.getLogger(name) for name in loggers]
    before = [logger.level for logger in named]
    try:
        for logger in named:
            logger.setLevel(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, own in zip(named, before):
            logger.setLevel(own)


def quiet_reading() -> AbstractContextManager[None]:
    """Within the block onnx-ir neither warns nor logs below an error."""
    return quiet(["onnx_ir"], logging.ERROR)
