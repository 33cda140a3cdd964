"""graphscale train on two hosts in network namespaces: one dies, or its link is cut."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# With the variable MORTAL, the second rank kills itself in its eighth step, in the second epoch.
NETWORK = """
import os
import signal

from torch import nn

class Mortal(nn.Module):
    steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if (self.steps, os.environ["RANK"], os.environ["MORTAL"]) == (8, "1", "1"):
                os.kill(os.getpid(), signal.SIGKILL)
        return x

def network(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), Mortal(), nn.Flatten(),
        nn.Linear(4 * 8 * 8, num_classes),
    )
"""
SENTENCE = "graphscale: rank {} of 2: another rank has ended or does not answer"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "unplug"])
def test_the_end_of_a_host(end: str, tmp_path: Path) -> None:
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    if os.geteuid() == 0 and probe.returncode:
        pytest.skip(f"needs the right to make network namespaces: {probe.stderr.strip()}")
    random = np.random.default_rng(0)
    for name in ("red", "blue"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(24):
            pixels = random.integers(0, 200, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    (tmp_path / "mortal_network.py").write_text(NETWORK)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("two_hosts.py")), str(tmp_path), end],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["seconds"] < 60
    for rank in (0,) if end == "kill" else (0, 1):
        complaints = re.findall("^graphscale: .*$", answer["said"][rank], re.MULTILINE)
        assert len(complaints) == 1, answer
        assert complaints[0].startswith(SENTENCE.format(rank))
        assert complaints[0].endswith("goes on from its last checkpoint with --resume")
        assert answer["statuses"][rank] == 2
    assert (tmp_path / end / "last.pt").exists()
