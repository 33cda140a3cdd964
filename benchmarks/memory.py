"""Peak memory of a process that does one thing."""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Bytes that this process has held at most.

    Not getrusage's ru_maxrss, which counts what the parent held when it forked.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
