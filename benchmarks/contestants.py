"""Runtimes that take turns, each in a process of its own.

The threads of a runtime spin for a while after a run. In one process they would slow down the next
runtime's turn; a process of its own also has a peak memory of its own. `Contestant` starts such a
process and asks it for turns; `serve` is what the process does.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from memory import peak
from turns import MAX_TURNS, REST, TURN_SECONDS, Times


class Contestant:
    """A process that runs `command`, which must call `serve`; it ends with the context."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def turn(self) -> float:
        """Seconds per call in a turn of at least `TURN_SECONDS`, behind a call to wake threads."""
        return self._ask("turn")

    def outputs(self, path: Path) -> list[np.ndarray]:
        """The outputs of a call, by way of a file."""
        self._ask(f"outputs {path}")
        with np.load(path) as kept:
            return [kept[name] for name in kept]

    def peak(self) -> int:
        """Peak memory of the process in bytes."""
        return int(self._ask("peak"))

    def _ask(self, question: str) -> float:
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(self._process.args)} ended; its errors stand above")
        return json.loads(answer)


def serve(run: Callable[[], list[np.ndarray]]) -> None:
    """Answer a `Contestant` until it closes the pipe; `run` calls the runtime once."""
    for question in sys.stdin:
        what, _, path = question.strip().partition(" ")
        answer = 0.0
        if what == "outputs":
            np.savez(path, *run())
        elif what == "peak":
            answer = peak()
        else:
            run()
            calls, started = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - started < TURN_SECONDS:
                run()
                calls += 1
            answer = (time.perf_counter() - started) / calls
        print(json.dumps(answer), flush=True)


def take_turns(contestants: Mapping[str, Contestant], budget: float) -> dict[str, Times]:
    """Seconds per call of each contestant; three turns at least, none after `budget` seconds."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    started = time.perf_counter()
    for turn in range(MAX_TURNS):
        for name, contestant in contestants.items():
            time.sleep(REST)
            taken[name].append(contestant.turn())
        if turn >= 2 and time.perf_counter() - started > budget:
            break
    return {name: Times(statistics.median(each), min(each)) for name, each in taken.items()}
