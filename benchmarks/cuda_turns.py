"""Times candidates that take turns on a GPU, and writes results to a file.

Functions by name go in, the median and the minimum of their seconds come out, by CUDA events.
`record` writes results with what they were measured on. turns.py is the same for a CPU.
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import graphscale

TURNS = 15
TURN_SECONDS = 2e-3
MAX_SECONDS = 3  # for all turns of a layer; slow candidates have fewer turns
SLOW_SECONDS = 0.1  # slower candidates have one call before the turns instead of two


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """Seconds per call on the GPU, by CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def times(candidates: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """Median and minimum of the seconds per call of each candidate; they take turns."""
    once = {}
    for name, run in candidates.items():
        first = seconds_of(run, 1)
        run_again = 2 if first < SLOW_SECONDS else 1
        once[name] = min(seconds_of(run, 1) for _ in range(run_again))
    repeats = {name: max(1, min(100, round(TURN_SECONDS / each))) for name, each in once.items()}
    turn = sum(max(TURN_SECONDS, each) for each in once.values())
    turns = max(3, min(TURNS, round(MAX_SECONDS / turn)))
    seconds = {name: [] for name in candidates}
    for _ in range(turns):
        for name, run in candidates.items():
            seconds[name].append(seconds_of(run, repeats[name]))
    return {
        name: {"median": statistics.median(each), "minimum": min(each)}
        for name, each in seconds.items()
    }


def provenance(**more: str) -> dict[str, object]:
    """The device, the versions and the time; `more` are further packages' versions by name."""
    return {
        "device": torch.cuda.get_device_name(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "graphscale": graphscale.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            **more,
        },
    }


def record(file: Path, entry: str, found: Mapping[str, object]) -> None:
    """Write an entry in place of its earlier one; the file is replaced as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(file.read_text()) if file.is_file() else {}
    results[entry] = found
    new = file.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(file)
