"""Alternatives that take turns in one process, so that all of them meet the same machine.

Medians and minima of the turns are kept: other work on the machine shows as a gap between them.
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
TURNS = 15
# Seconds of a call that has no other before it, which wakes threads and takes memory again that the
# last way gave back.
LONG_CALL = 5.0
REST = 0.1  # seconds between alternatives, for the threads of the last one to stop spinning


@dataclass
class Times:
    median: float  # seconds
    minimum: float


def take_turns(ways: dict[str, Callable[[], object]], budget: float = 2.5) -> dict[str, Times]:
    """Seconds per call of each way; fast ones are called several times in a turn."""
    calls, taken, quick = {}, {name: [] for name in ways}, set()
    for name, way in ways.items():
        way()
        started = time.perf_counter()
        way()
        seconds = time.perf_counter() - started
        calls[name] = max(1, int(0.01 / seconds))
        if seconds < LONG_CALL:
            quick.add(name)
    started = time.perf_counter()
    for turn in range(TURNS):
        for name, way in ways.items():
            time.sleep(REST)
            if name in quick:
                way()
            begun = time.perf_counter()
            for _ in range(calls[name]):
                way()
            taken[name].append((time.perf_counter() - begun) / calls[name])
        if turn >= 2 and time.perf_counter() - started > budget:
            break
    return {name: Times(statistics.median(each), min(each)) for name, each in taken.items()}


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def record(file: Path, part: str, points: list) -> None:
    """Put a part's points, with device, versions and date, in the place of its former ones."""
    results = json.loads(file.read_text()) if file.exists() else {}
    results[part] = {
        "device": f"{processor()}, {THREADS} cores",
        "versions": {name: version(name) for name in ("onnxruntime-gpu", "torch", "scipy")},
        "date": datetime.date.today().isoformat(),
        "points": points,
    }
    file.write_text(json.dumps(results, indent=1) + "\n")
