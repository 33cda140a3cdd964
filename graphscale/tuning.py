"""Find out which of two ways is faster on this machine, and remember it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from graphscale import __version__
from graphscale.files import replacing

_LEAST_GAIN = 0.95  # what FFT takes must be below this part of what the direct way takes
_ROUNDS = 9
_LONGEST = 2.0  # seconds spent on one problem, when it is slow


@dataclass(frozen=True)
class Timing:
    """Median seconds of one run, the direct way and by FFT."""

    direct: float
    fft: float

    @property
    def faster(self) -> str:
        """'fft' or 'direct'; a tie goes to the direct way."""
        return "fft" if self.fft < _LEAST_GAIN * self.direct else "direct"


class Tuner:
    """Measurements of this machine, kept in a file between runs.

    Args:
        runtime: What computes, with its version, as 'onnxruntime 1.31.1'; measurements of another
            runtime, device or number of threads do not count.
        path: The file; by default tuning.json in the user's cache folder.
    """

    def __init__(self, runtime: str, path: Path | None = None) -> None:
        self.path = path or _default_path()
        self._place = f"{runtime}, graphscale {__version__}, {_device()}"
        self._known: dict[str, dict[str, dict]] = self._read()

    def timing(
        self, key: str, prepare: Callable[[], tuple[Callable[[], object], Callable[[], object]]]
    ) -> Timing:
        """The timing known for `key`, or one measured now.

        `prepare` gives the two ways, direct and FFT, as functions that run once.
        """
        known = self._known.setdefault(self._place, {})
        if key not in known:
            known[key] = asdict(measure(*prepare()))
            self._write()
        return Timing(**known[key])

    def _read(self) -> dict:
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}  # no file yet, or one from an interrupted disk: measure again

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as (file,):
            file.write(json.dumps(self._known, indent=1).encode())


def measure(direct: Callable[[], object], fft: Callable[[], object]) -> Timing:
    """Time two functions in turn, after one run each that is not counted; medians."""
    direct()
    fft()
    seconds: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for function, into in zip((direct, fft), seconds, strict=True):
            before = time.perf_counter()
            function()
            into.append(time.perf_counter() - before)
        if time.perf_counter() - started > _LONGEST:
            break
    return Timing(*map(statistics.median, seconds))


def _default_path() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "graphscale" / "tuning.json"


def _device() -> str:
    """The processor's name and the number of its cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
