"""Measures which of several candidates is the fastest on this machine, and remembers it in a file.

Candidates, functions by name, go in; seconds by name come out. `measure` runs the candidates,
`fastest` chooses one by their seconds, and `Tuner` keeps the seconds from run to run.
"""

from __future__ import annotations

import json
import math
import os
import platform
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

from graphscale import __version__
from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular, locked, replacing

# Another candidate is chosen instead of the default one where it takes less than this share of its
# seconds.
_MAX_TIME_RATIO = 0.95
_MAX_ROUNDS = 6  # in each round every candidate that is still measured has a turn
# Candidates farther behind the fastest are no longer measured: after the first round, after others.
_MAX_RATIOS_TO_FASTEST = (2.0, 1.2)
# A candidate whose first run takes more than both has no turn at all.
_HOPELESS_RATIO = 20  # to the fastest first run
_HOPELESS_SECONDS = 0.5
_MAX_SECONDS = 3.0  # after which no further round begins, but for the second one
# A turn is a warm-up, in which threads and processors wake up, and what is counted. Fast candidates
# run several times in either; slow ones need no warm-up.
_WARM_UP_SECONDS = 0.001
_TURN_SECONDS = 0.002
_SLOW_SECONDS = 0.005

Candidates = dict[str, Callable[[], object]]
# Seconds by environment (machine, runtime and versions), problem and candidate.
Measurements = dict[str, dict[str, dict[str, float]]]

_TUNERS: weakref.WeakSet[Tuner] = weakref.WeakSet()


class Tuner:
    """Measurements on this machine, kept in a file from run to run.

    Args:
        runtime: The runtime with its version, such as 'onnxruntime 1.31.1'. Measurements of another
            runtime, processor or number of cores are kept apart.
        path: The file; by default graphscale/tuning.json in the user's cache folder.
        default: The candidate that every problem has. What is kept without it is damaged, and is
            measured again.
        measure_again: Use no measurement of earlier runs; new ones replace them in the file.
    """

    def __init__(
        self,
        runtime: str,
        path: Path | None = None,
        *,
        default: str | None = None,
        measure_again: bool = False,
    ) -> None:
        self.path = path or _default_path()
        self._environment = f"{runtime}, graphscale {__version__}, {_device()}"
        kept = {} if measure_again else self._read().get(self._environment, {})
        self._known = {
            key: seconds for key, seconds in kept.items() if default is None or default in seconds
        }
        self._measuring = threading.Lock()
        _TUNERS.add(self)

    def seconds(self, key: str, make_candidates: Callable[[], Candidates]) -> dict[str, float]:
        """Seconds of each candidate for the problem `key`, from the file or measured now.

        Args:
            key: Names the problem.
            make_candidates: Makes the candidates; called where the problem is not known yet.
        """
        with self._measuring:  # one thread at a time: two would slow each other down
            if key not in self._known:
                self._known[key] = measure(make_candidates())
                self._write()
            return self._known[key]

    def known(self, key: str) -> dict[str, float] | None:
        """The seconds measured before for the problem `key`, or None."""
        return self._known.get(key)

    def forget(self, key: str) -> None:
        """Let the problem `key` be measured again."""
        self._known.pop(key, None)

    def _read(self) -> Measurements:
        try:
            if self.path is None:
                return {}
            check_regular(self.path)
            return _well_formed(json.loads(self.path.read_text()))
        except (OSError, ValueError, RecursionError):
            return {}  # no file yet, or a damaged one: measure again

    def _write(self) -> None:
        """Write the file, with what other processes have added to it meanwhile."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                content = self._read()
                content[self._environment] = {**content.get(self._environment, {}), **self._known}
                with replacing(self.path) as (file,):
                    file.write(json.dumps(content, indent=1).encode())
        except (OSError, GraphScaleError) as error:
            warnings.warn(
                f"{self.path}: measurements cannot be kept ({error}); set XDG_CACHE_HOME to a "
                "folder that is writable",
                stacklevel=2,
            )
            self.path = None


def _renew_locks() -> None:
    """Give a forked child free locks: the threads that hold them exist in its parent only."""
    for tuner in _TUNERS:
        tuner._measuring = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _well_formed(content: object) -> Measurements:
    """The measurements in a file's content; what is damaged is left out."""
    if not isinstance(content, dict):
        return {}
    return {
        environment: {
            key: seconds
            for key, seconds in known.items()
            if isinstance(seconds, dict) and seconds and all(map(_is_time, seconds.values()))
        }
        for environment, known in content.items()
        if isinstance(known, dict)
    }


def _is_time(value: object) -> bool:
    return type(value) in (float, int) and 0 < value < math.inf


def fastest(seconds: dict[str, float], default: str) -> str:
    """The name of the fastest candidate; `default`, unless another is more than 5 % faster."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < _MAX_TIME_RATIO * seconds[default] else default


def measure(candidates: Candidates, max_seconds: float = _MAX_SECONDS) -> dict[str, float]:
    """Seconds of the fastest run of each candidate; the candidates take turns.

    Minimum, not median: other load on the machine only adds time, often several times that of the
    run itself. Each candidate runs once before its first turn. A hopelessly slow candidate has no
    turn (torch's gradients of large kernels can take minutes), one far behind the fastest has one
    or two, and so has the fastest where all others are far behind.

    Args:
        candidates: Functions without arguments, by name.
        max_seconds: After this many seconds there are no more than two rounds.
    """
    best = {name: _seconds(run) for name, run in candidates.items()}
    hopeless = max(_HOPELESS_SECONDS, _HOPELESS_RATIO * min(best.values()))
    running = {name: run for name, run in candidates.items() if best[name] <= hopeless}
    quick = {name for name in running if best[name] < _SLOW_SECONDS}
    best.update(
        dict.fromkeys(running, math.inf)
    )  # first runs do not count: they also prepack weights
    started = time.perf_counter()
    for done in range(1, _MAX_ROUNDS + 1):
        for name, run in running.items():
            if name in quick:
                _fastest_run(run, _WARM_UP_SECONDS)
            best[name] = min(best[name], _fastest_run(run, _TURN_SECONDS))
        limit = _MAX_RATIOS_TO_FASTEST[done > 1] * min(best.values())
        running = {name: run for name, run in running.items() if best[name] <= limit}
        if done > 1 and (len(running) == 1 or time.perf_counter() - started > max_seconds):
            break
    return best


def _fastest_run(run: Callable[[], object], min_seconds: float) -> float:
    """Seconds of the fastest run, repeated until `min_seconds` have passed."""
    started = time.perf_counter()
    found = _seconds(run)
    while time.perf_counter() - started < min_seconds:
        found = min(found, _seconds(run))
    return found


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _default_path() -> Path | None:
    """tuning.json in the user's cache folder; None where the user has no home folder."""
    try:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
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
