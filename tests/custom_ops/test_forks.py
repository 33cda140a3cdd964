"""A process forks while four of its threads compute: each child computes, too, and never hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORKING = """
import os, signal, sys, threading, warnings
import torch
from graphscale.core.tuning import Tuner
from graphscale.layers import FFTConv2d

warnings.simplefilter("ignore")
torch.set_num_threads(1)  # torch's own threads do not outlive a fork
ended = threading.Event()
tuner = Tuner("forks")

def compute(number):
    taps, size = 3 + number % 4, 9 + number % 41
    layer = FFTConv2d(1 + number % 3, 2, taps)
    x = torch.ones(1, 1 + number % 3, size, size)
    with torch.no_grad():
        first, second = layer(x), layer(x)  # the second time with prepacked weights
        return torch.equal(first[0, 0, 0, 0], second[0, 0, 0, 0]) or torch.allclose(first, second)

def keep_computing(number):
    while not ended.is_set():
        compute(number)
        number += 4

def keep_measuring():  # as accelerate does
    number = 0
    while not ended.is_set():
        tuner.seconds(f"{number % 50}", lambda: {"one": lambda: compute(3)})
        tuner.forget(f"{number % 50}")
        number += 1

work = [threading.Thread(target=keep_computing, args=(i,)) for i in range(3)]
work.append(threading.Thread(target=keep_measuring))
for thread in work:
    thread.start()
failures = 0
for number in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for a lock ends here, by SIGALRM
        good = compute(1000 + number)
        good = good and tuner.seconds("in the child", lambda: {"one": lambda: None})
        os._exit(0 if good else 1)
    failures += os.waitpid(child, 0)[1] != 0
ended.set()
for thread in work:
    thread.join()
print(failures)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("forks", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_forks_beside_computing_threads(forks: int, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-c", FORKING, str(forks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"


def test_forks_without_python(build_target: Callable[[str], Path]) -> None:
    command = [build_target("drive_forks") / "drive_forks", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "200 forks, 0 failures\n"), done.stderr
