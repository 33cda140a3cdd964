"""A context in which onnx and onnx-ir say nothing on standard error while they read a message.

They warn of fields that they do not know and log what does not fit together, which repeats the
errors that reading raises here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_reading() -> Iterator[None]:
    """Within the block onnx-ir neither warns nor logs below an error."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
