"""graphscale train on two and three ranks: as on one, stopped, resumed, and with faults."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.training import ranks
from graphscale.training.image_batches import ResumableOrder
from graphscale.training.image_folder import check_images, joined_statistics
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.started import FolderOptions
from graphscale.training.train_folder import Notices, train_folder
from graphscale.training.trainer import Events, Interrupted, TrainingOptions
from tests.distributed.ranks import on_ranks
from tests.training.colour_images import write_red_and_blue

# Without BatchNorm, whose statistics are each rank's own, results differ by the order of sums only.
NETWORK = """
from torch import nn

def make(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, num_classes),
    )
"""
BATCH = 7  # which is divided evenly neither by two nor by three


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue images: 11 of each class to train on, 5 to validate on."""
    folder = tmp_path_factory.mktemp("ranks")
    random = np.random.default_rng(0)
    for part, count in (("train", 11), ("val", 5)):
        write_red_and_blue(folder / "images" / part, count, random, noise=160, colour=60)
    (folder / "network_of_ranks.py").write_text(NETWORK)
    return folder


def train(
    folder: Path, name: str, stop_after: int | None = None, recipe: str = "target", **options
) -> list[dict]:
    """The records of a training; with `stop_after`, it stops after so many steps."""
    sys.path.insert(0, str(folder))
    trainers, steps = [], []

    def stepped(epoch: int, batch: int, batches: int) -> None:
        steps.append(batch)
        if len(steps) == stop_after:
            trainers[-1].stop = True

    results = train_folder(
        "network_of_ranks:make",
        folder / "images",
        folder / name,
        recipe_name=recipe,
        options=TrainingOptions(
            epochs=8 if recipe == "late" else 3,
            rate=0.02,
            schedule=RateSchedule("cosine", warm_up=0.1),
            **options,
        ),
        folder_options=FolderOptions(BATCH, "crop", (16, 16), workers=0, device="cpu"),
        resume=(folder / name / "last.pt").exists(),
        notices=Notices(events=Events(batch_done=stepped), trainer=trainers.append),
    )
    assert not torch.distributed.is_initialized()
    return [asdict(record) for record in results[0].records]


def numbers(records: list[dict]) -> np.ndarray:
    names = ("train_loss", "train_accuracy", "loss", "accuracy")
    return np.array([[record[name] for name in names] for record in records])


def whole_in_rank(rank: int, folder: Path, name: str, recipe: str = "target") -> list[dict]:
    return train(folder, name, recipe=recipe)


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[dict]:
    return train(folder, "alone")


def test_as_one_process_with_growth(folder: Path) -> None:
    grown = train(folder, "grown", recipe="late")
    assert len({record["stage"] for record in grown}) > 1
    answers = on_ranks(2, whole_in_rank, folder, "grown_of_2", "late", torchrun=True)
    np.testing.assert_allclose(numbers(answers[0]), numbers(grown), rtol=1e-4)
    np.testing.assert_array_equal(numbers(answers[1]), numbers(answers[0]))
    assert (numbers(grown)[:, 3] * 10 % 1).round(6).max() == 0  # of ten images
    names = {each.name for each in (folder / "grown_of_2").iterdir()} - {"tensorboard"}
    assert names == {each.name for each in (folder / "grown").iterdir()} - {"tensorboard"}


def stopped_in_rank(rank: int, folder: Path, name: str) -> None:
    """The last rank alone is asked to stop; all do, after the same step."""
    with pytest.raises(Interrupted):
        train(folder, name, stop_after=5 if rank == 1 else None)


def test_resumes_with_another_number_of_ranks(folder: Path, alone: list[dict]) -> None:
    on_ranks(2, stopped_in_rank, folder, "stopped", torchrun=True)
    checkpoint = torch.load(folder / "stopped" / "last.pt", weights_only=True)
    assert checkpoint["place"] == [1, 3]  # asked after five steps, all stop after the sixth
    answers = on_ranks(3, whole_in_rank, folder, "stopped", torchrun=True)
    np.testing.assert_allclose(numbers(answers[0]), numbers(alone), rtol=1e-4)


def one_bit_in_rank(rank: int, folder: Path, name: str, stop_after: int | None) -> list[dict]:
    if stop_after is None:
        return train(folder, name, gradient="onebit")
    with pytest.raises(Interrupted):
        train(folder, name, stop_after, gradient="onebit")
    return []


def test_one_bit_resumes_bit_for_bit(folder: Path) -> None:
    whole = on_ranks(2, one_bit_in_rank, folder, "bits", None, torchrun=True)[0]
    on_ranks(2, one_bit_in_rank, folder, "bits_stopped", 4, torchrun=True)
    resumed = on_ranks(2, one_bit_in_rank, folder, "bits_stopped", None, torchrun=True)[0]
    np.testing.assert_array_equal(numbers(resumed), numbers(whole))
    states = [
        torch.load(folder / name / "last.pt", weights_only=True)
        for name in ("bits", "bits_stopped")
    ]
    for name, weight in states[0]["network"].items():
        assert torch.equal(states[1]["network"][name], weight)
    assert len(states[0]["one_bit"]["all_ranks"]) == 2


def faulty_in_rank(rank: int, folder: Path) -> list[str]:
    """An error on one rank is the same sentence on all."""
    errors = []
    sys.path.insert(0, str(folder))
    for name, options in (("alone2", {"rate": 1e30}), ("alone", {})):
        with pytest.raises(GraphScaleError) as caught:
            train_folder(
                "network_of_ranks:make",
                folder / "images",
                folder / name,
                recipe_name="target",
                options=TrainingOptions(epochs=3, **options),
                folder_options=FolderOptions(BATCH, "crop", (16, 16), workers=0, device="cpu"),
            )
        errors.append(str(caught.value))
    return errors


def test_errors_are_the_same_on_every_rank(folder: Path, alone: list[dict]) -> None:
    one, other = on_ranks(2, faulty_in_rank, folder, torchrun=True)
    assert one == other
    assert "the training has diverged" in one[0]
    assert "holds a training already" in one[1]


def killed_in_rank(rank: int, folder: Path) -> str:
    def stepped(epoch: int, batch: int, batches: int) -> None:
        if (rank, epoch, batch) == (1, 1, 2):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.path.insert(0, str(folder))
    with pytest.raises(GraphScaleError) as caught:
        train_folder(
            "network_of_ranks:make",
            folder / "images",
            folder / "killed",
            recipe_name="target",
            options=TrainingOptions(epochs=3, rate=0.02),
            folder_options=FolderOptions(BATCH, "crop", (16, 16), workers=0, device="cpu"),
            notices=Notices(events=Events(batch_done=stepped)),
        )
    return str(caught.value)


def test_a_killed_rank_is_a_sentence_on_the_others(folder: Path) -> None:
    started = time.monotonic()
    answers = on_ranks(3, killed_in_rank, folder, torchrun=True, dies=1)
    assert time.monotonic() - started < 60
    for rank in (0, 2):
        assert answers[rank].startswith(f"rank {rank} of 3: another rank has ended or does not ")
        assert answers[rank].endswith("goes on from its last checkpoint with --resume")
    assert torch.load(folder / "killed" / "last.pt", weights_only=True)["place"] == [1, 0]


def meets_often_in_rank(rank: int) -> list[float]:
    """The sums of eight trainings' exchanges; the first rank comes late to each."""
    sums = []
    for training in range(8):
        if rank == 0:
            time.sleep(0.05)
        with suppress(GraphScaleError), ranks.joined_ranks("cpu") as joined:
            sums.append(float(joined.table([10 * training + rank]).sum()))
            raise GraphScaleError(
                "as where the loss diverges: the ranks end without a last meeting"
            )
    return sums


def test_ranks_meet_again_in_the_same_processes() -> None:
    answers = on_ranks(2, meets_often_in_rank, torchrun=True)
    assert answers == [[20 * training + 1 for training in range(8)]] * 2


RESTARTED = """
import os, signal
from graphscale import GraphScaleError
from graphscale.training.ranks import is_restart, joined_ranks

try:
    with joined_ranks("cpu") as ranks:
        for step in range(4):
            ranks.table([step])
            if step == 2 and ranks.rank == 1 and not is_restart():
                os.kill(os.getpid(), signal.SIGKILL)
        print("done", ranks.rank, is_restart(), flush=True)
except GraphScaleError as error:
    print(error, flush=True)
    raise SystemExit(2)
"""


@pytest.mark.slow
def test_torchrun_starts_the_ranks_again(tmp_path: Path) -> None:
    (tmp_path / "restarted.py").write_text(RESTARTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [*command, str(tmp_path / "restarted.py")],
        env={**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall("done . True", done.stdout)) == ["done 0 True", "done 1 True"]


# --- the parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 3])
def test_images_are_split_without_overlap(ranks: int) -> None:
    whole = list(ResumableOrder(23, seed=1, batch=7))
    assert len(whole) == 21
    parts = [list(ResumableOrder(23, seed=1, batch=7, share=(r, ranks))) for r in range(ranks)]
    for batch in range(3):
        taken = []
        for rank, part in enumerate(parts):
            own = len(range(rank, 7, ranks))
            taken += part[batch * own : (batch + 1) * own]
        assert sorted(taken) == sorted(whole[batch * 7 : (batch + 1) * 7])
    assert sum(map(len, parts)) == len(whole)
    order = ResumableOrder(23, seed=1, batch=7, share=(1, ranks))
    order.start = 7
    assert list(order) == parts[1][len(range(1, 7, ranks)) :]


def test_a_silent_rank_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_BEAT", timedelta(seconds=0.01))
    store = torch.distributed.HashStore()
    one, other = (ranks._Heartbeat(store, rank, 2) for rank in (0, 1))
    one.start()
    other.start()
    while not one._counts or b"0" in one._counts:  # until both have been heard
        time.sleep(0.01)
    one.check()
    other.stop()
    while one._heard[0] - one._heard[1] < 1:
        time.sleep(0.01)
    between = time.monotonic() - one._heard[1] - 0.5
    monkeypatch.setattr(ranks, "_SILENCE", timedelta(seconds=between))
    with pytest.raises(RuntimeError, match="timed out: rank 1 has said nothing"):
        one.check()
    one.stop()


def test_statistics_of_shares(folder: Path) -> None:
    files = [(path, 0) for path in sorted((folder / "images").rglob("*.png"))]
    whole = check_images(files, 3)
    joined = joined_statistics([check_images(files[rank::3], 3) for rank in range(3)])
    np.testing.assert_allclose(joined.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(joined.deviation, whole.deviation, rtol=1e-12)
    assert (joined.grey, joined.smallest) == (whole.grey, whole.smallest)


def test_a_batch_for_too_many_ranks(folder: Path) -> None:
    from graphscale.training.image_batches import FolderBatches, Normalization

    with pytest.raises(GraphScaleError, match="fewer images than there are ranks, 3"):
        FolderBatches(
            [(folder, 0)] * 4,
            [],
            channels=3,
            batch=2,
            augmentation="none",
            normalization=Normalization((0,), (1,)),
            share=(0, 3),
        )


def test_options_are_written_and_read(folder: Path, alone: list[dict]) -> None:
    assert json.loads((folder / "alone/options.json").read_text())["options"]["gradient"] == "mean"
    with pytest.raises(GraphScaleError, match="'sum'; use mean or onebit"):
        TrainingOptions(gradient="sum")
