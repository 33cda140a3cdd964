"""graphscale train --resume: the options that may be given again, and those that are refused."""

import json
from pathlib import Path

import pytest

from graphscale.cli import main
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.started import FolderOptions, Started
from graphscale.training.trainer import TrainingOptions

STARTED = Started(
    "network:make",
    "images",
    "paper",
    False,
    TrainingOptions(epochs=20, rate=0.02, schedule=RateSchedule("steps", warm_up=0.1)),
    FolderOptions(batch=8, image_size=(16, 12), channels=1, workers=3, device="cpu"),
)


@pytest.fixture(autouse=True)
def _started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/options.json").write_text(json.dumps(STARTED.to_json()))


def said(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["train", *options, "--resume", "-o", "run"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["network:other"],
            "model: the training in run was started with another one (n",
        ),
        (["network:make", "--data", "photos"], "--data: the training in run was started with"),
        (["network:make", "--recipe", "target"], "--recipe"),
        (["network:make", "--baseline"], "another one (off)"),
        (["network:make", "--epochs", "7"], "--epochs: the training in run was started with anoth"),
        (["network:make", "--rate", "0.5"], "another one (0.02)"),
        (["network:make", "--schedule", "linear"], "another one (steps)"),
        (["network:make", "--epochs", "20", "--warm-up", "3"], "--warm-up"),
        (["network:make", "--contiguous"], "--contiguous"),
        (["network:make", "--image-size", "16"], "another one (16x12)"),
        (["network:make", "--seed", "1"], "another one (0)"),
    ],
)
def test_another_option_is_refused(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in said(capsys, *options)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--workers", "0", "--device", "cpu"],
        ["--data", "./images", "--recipe", "paper", "--epochs", "20", "--rate", "0.02"],
        ["--schedule", "steps", "--epochs", "20", "--warm-up", "2", "--image-size", "16x12"],
        ["--batch", "8", "--channels", "1"],
    ],
)
def test_the_same_options_go_on(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As far as the images, which are not there."""
    assert "images: is not a folder" in said(capsys, "network:make", *options)
