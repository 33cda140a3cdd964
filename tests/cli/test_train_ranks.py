"""graphscale train under torchrun: a rank is killed, and other ranks resume the training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphscale.cli import main
from tests.cli.signals import heed_signals
from tests.distributed.ranks import on_ranks
from tests.training.colour_images import write_red_and_blue
from tests.training.mortal_network import MORTAL, write_mortal_network

OPTIONS = [
    *("mortal_network:network", "--data", "images", "--image-size", "16", "--epochs", "3"),
    *("--batch", "7", "--rate", "0.02", "--augmentation", "crop", "--workers", "0"),
    *("--recipe", "target"),
]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with red and blue images, and the network."""
    random = np.random.default_rng(0)
    write_red_and_blue(tmp_path / "images", 24, random, noise=160, colour=60)
    write_mortal_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def resumed_in_rank(rank: int, folder: Path) -> int:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    return main(["train", *OPTIONS, "--resume", "-o", "killed"])


def epochs(folder: str) -> list[dict]:
    return json.loads((Path(folder) / "result.json").read_text())["results"][0]["epochs"]


def test_a_rank_is_killed_and_fewer_ranks_resume(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "3", "-m", "graphscale", "train", *OPTIONS, "-o", "killed"]
    paths = os.pathsep.join(sys.path)
    (tmp_path / MORTAL).write_text("1")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        preexec_fn=heed_signals,
        timeout=400,
    )
    assert done.returncode == 1  # torchrun's own
    said = done.stderr
    sentences = [line for line in said.splitlines() if line.startswith("graphscale: ")]
    wanted = r"graphscale: rank ([02]) of 3: another rank has ended or does not answer \(.*\); "
    wanted += "the training goes on from its last checkpoint with --resume"
    ranks = sorted(re.sub(wanted, r"\1", sentence) for sentence in sentences)
    assert ranks == ["0", "2"], said
    assert not (tmp_path / "killed" / "result.json").exists()

    (tmp_path / MORTAL).unlink()
    assert on_ranks(2, resumed_in_rank, tmp_path, torchrun=True) == [0, 0]
    assert main(["train", *OPTIONS, "-o", "alone", "--quiet"]) == 0
    resumed, alone = epochs("killed"), epochs("alone")
    assert len(resumed) == len(alone)
    for name in ("loss", "train_loss", "accuracy"):
        got, expected = ([epoch[name] for epoch in each] for each in (resumed, alone))
        np.testing.assert_allclose(got, expected, rtol=1e-3)
