"""Times candidates that take turns in one process, and writes results to a file.

Functions by name go in, the median and the minimum of their seconds come out. Candidates take turns
so that all of them meet the same load of the machine; where median and minimum lie far apart, other
processes disturbed the measurement. `record` writes results with device, versions and date.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

THREADS = os.cpu_count() or 1
MAX_TURNS = 15
TURN_SECONDS = 0.01  # in a turn, fast candidates are called for at least so long
# Each turn starts with a call that is not counted, which wakes threads and allocates memory that
# the last candidate freed; not where a call takes this many seconds.
SLOW_SECONDS = 5.0
REST = 0.1  # seconds between turns, in which the threads of the last candidate stop spinning


@dataclass
class Times:
    """Median and minimum of the turns, in seconds per call."""

    median: float
    minimum: float


def take_turns(
    candidates: dict[str, Callable[[], object]], budget: float = 2.5
) -> dict[str, Times]:
    """Seconds per call of each candidate; there are three turns at least.

    Args:
        candidates: Functions without arguments, by name.
        budget: Seconds after which no further turn begins.
    """
    calls, taken, quick = {}, {name: [] for name in candidates}, set()
    for name, run in candidates.items():
        run()
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        calls[name] = max(1, int(TURN_SECONDS / seconds))
        if seconds < SLOW_SECONDS:
            quick.add(name)
    started = time.perf_counter()
    for turn in range(MAX_TURNS):
        for name, run in candidates.items():
            time.sleep(REST)
            if name in quick:
                run()
            begun = time.perf_counter()
            for _ in range(calls[name]):
                run()
            taken[name].append((time.perf_counter() - begun) / calls[name])
        if turn >= 2 and time.perf_counter() - started > budget:
            break
    return {name: Times(statistics.median(each), min(each)) for name, each in taken.items()}


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def record(file: Path, part: str, points: list) -> None:
    """Write a part's points with device, versions and date, in place of its earlier ones."""
    results = json.loads(file.read_text()) if file.exists() else {}
    results[part] = {
        "device": f"{processor()}, {THREADS} cores",
        "versions": {name: version(name) for name in ("onnxruntime-gpu", "torch", "scipy")},
        "date": datetime.date.today().isoformat(),
        "points": points,
    }
    file.write_text(json.dumps(results, indent=1) + "\n")
