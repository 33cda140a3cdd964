"""Finds out which of several candidates is the fastest on this machine, and remembers it.

Candidates are functions by name; what comes out are seconds by name. `Tuner` keeps them in a file,
`measure` takes them, `fastest` chooses.
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
from graphscale.core.files import check_regular, replacing

_LEAST_GAIN = 0.95  # of the usual candidate's seconds: another one must take less than that
_ROUNDS = 9
_ROUNDS_FOR_ALL = 2
_WORTH_ANOTHER_ROUND = 1.3  # times the fastest so far
_HOPELESS = 20  # times the fastest
_HOPELESS_SECONDS = 0.5
_LONGEST = 3.0  # seconds spent on one problem, when it is slow
_WARM_UP = 0.005  # seconds of a turn that are not counted: threads and processors wake up
_LONG_RUN = 0.1  # seconds, beside which a warm-up would be nothing
_TURN = 0.005  # seconds of a turn that are counted: fast candidates run several times

Candidates = dict[str, Callable[[], object]]
# By place (machine, runtime, versions), by problem, by candidate: seconds.
Measurements = dict[str, dict[str, dict[str, float]]]

_TUNERS: weakref.WeakSet[Tuner] = weakref.WeakSet()


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
        self._known = self._read()
        self._measuring = threading.Lock()
        _TUNERS.add(self)

    def seconds(
        self, key: str, make_candidates: Callable[[], Candidates], rest: float = 0.0
    ) -> dict[str, float]:
        """Seconds of each candidate to compute what `key` names, known or measured now.

        `rest`: see `measure`.
        """
        with self._measuring:  # one thread at a time: others would be in the way
            known = self._known.setdefault(self._place, {})
            if key not in known:
                known[key] = measure(make_candidates(), rest)
                self._write()
            return known[key]

    def known(self, key: str) -> dict[str, float] | None:
        """What was measured before of the problem that `key` names."""
        return self._known.get(self._place, {}).get(key)

    def _read(self) -> Measurements:
        try:
            if self.path is None:
                return {}
            check_regular(self.path)
            return _well_formed(json.loads(self.path.read_text()))
        except (OSError, ValueError, RecursionError):
            return {}  # no file yet, or a damaged one: measure again

    def _write(self) -> None:
        """Add what is known to the file, to which other processes may have added meanwhile."""
        if self.path is None:
            return
        for place, known in self._read().items():
            self._known[place] = {**known, **self._known.get(place, {})}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as (file,):
                file.write(json.dumps(self._known, indent=1).encode())
        except (OSError, GraphScaleError) as error:
            warnings.warn(
                f"{self.path}: measurements cannot be kept ({error}); set XDG_CACHE_HOME to a "
                "folder that is writable",
                stacklevel=2,
            )
            self.path = None


def _renew_locks() -> None:
    """A child process has none of the threads that might hold a lock at the fork."""
    for tuner in _TUNERS:
        tuner._measuring = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _well_formed(content: object) -> Measurements:
    """What of a file's content is measurements."""
    if not isinstance(content, dict):
        return {}
    return {
        place: {
            key: seconds
            for key, seconds in known.items()
            if isinstance(seconds, dict)
            and seconds
            and all(isinstance(each, float | int) and each > 0 for each in seconds.values())
        }
        for place, known in content.items()
        if isinstance(known, dict)
    }


def fastest(seconds: dict[str, float], usual: str) -> str:
    """The fastest candidate; a tie (within 5 %) goes to the usual one."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < _LEAST_GAIN * seconds[usual] else usual


def measure(
    candidates: Candidates, rest: float = 0.0, longest: float = _LONGEST
) -> dict[str, float]:
    """Seconds of the fastest run of each candidate; they take turns.

    The minimum, not the median: other load on the machine only adds time, and a thread that waits
    for its core adds several times what a run takes. Each candidate runs once before. Hopelessly
    slow ones (torch's gradients of large kernels can take minutes) have no turn, those far behind
    the fastest have few.

    Args:
        rest: Seconds before each turn, for candidates whose threads go on spinning after theirs.
        longest: Seconds after which two rounds are enough.
    """
    best = {name: _seconds(run) for name, run in candidates.items()}
    hopeless = max(_HOPELESS_SECONDS, _HOPELESS * min(best.values()))
    running = {name: run for name, run in candidates.items() if best[name] <= hopeless}
    quick = {name for name in running if best[name] < _LONG_RUN}
    best.update(dict.fromkeys(running, math.inf))  # first runs prepack weights, too
    started = time.perf_counter()
    for done in range(1, _ROUNDS + 1):
        for name, run in running.items():
            time.sleep(rest)
            if name in quick:
                _fastest_run(run, _WARM_UP)
            best[name] = min(best[name], _fastest_run(run, _TURN))
        if done < _ROUNDS_FOR_ALL:
            continue
        if time.perf_counter() - started > longest:
            break
        if done == _ROUNDS_FOR_ALL:
            limit = _WORTH_ANOTHER_ROUND * min(best.values())
            running = {name: run for name, run in running.items() if best[name] <= limit}
    return best


def _fastest_run(run: Callable[[], object], least: float) -> float:
    """Seconds of the fastest of as many runs as take `least` seconds, or of one."""
    started = time.perf_counter()
    found = _seconds(run)
    while time.perf_counter() - started < least:
        found = min(found, _seconds(run))
    return found


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _default_path() -> Path | None:
    """None where the user has no home, as in some containers."""
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
