"""A context in which torch says nothing on standard error while it traces or exports.

The exporter warns of packages that are not installed and of its own deprecated calls, and tracing
logs the traceback of what it raises, which tells a user nothing more. What cannot be traced is
raised, as before.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from graphscale.core.quiet import quiet

# A child of one of these has a level of its own only where a user has set it.
_LOGGERS = ("torch.onnx", "torch.export", "torch._guards", "torch._subclasses.fake_tensor")


def quiet_tracing() -> AbstractContextManager[None]:
    """Within the block torch's exporter and its shape inference neither warn nor log."""
    return quiet(_LOGGERS, logging.CRITICAL)
