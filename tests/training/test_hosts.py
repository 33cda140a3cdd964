"""graphscale train on two hosts in network namespaces: one dies, or its link is cut."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.colour_images import write_red_and_blue
from tests.training.mortal_network import MORTAL, write_mortal_network

SENTENCE = "graphscale: rank {} of 2: another rank has ended or does not answer"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "unplug"])
def test_the_end_of_a_host(end: str, tmp_path: Path) -> None:
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    if os.geteuid() == 0 and probe.returncode:
        pytest.skip(f"needs the right to make network namespaces: {probe.stderr.strip()}")
    write_red_and_blue(tmp_path / "images", 24, np.random.default_rng(0), noise=160, colour=60)
    write_mortal_network(tmp_path)
    if end == "kill":
        (tmp_path / MORTAL).write_text("1")
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
