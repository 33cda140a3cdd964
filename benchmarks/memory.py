"""Peak memory of the process that asks for it.

A benchmark runs each candidate in a process of its own, which prints `peak` at its end.
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Peak resident memory of this process in bytes (VmHWM of Linux' /proc/self/status).

    getrusage's ru_maxrss would include the memory that the parent process held when it forked.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
