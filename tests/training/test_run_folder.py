"""The files of a training: whole or as they were, read back as they were written."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from graphscale import GraphScaleError
from graphscale.training.run_folder import EpochRecord, RunFolder

FIRST = EpochRecord(1, 0, 44, 0.1, 0.7, 0.5, 0.6, 0.625, 100.0, 12.0, 24.0)
SECOND = EpochRecord(2, 1, 64, 0.1, 0.5, 0.75, 0.4, 0.875, 50.0, 30.0, 60.0, 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "a" / "run")
    made.create({"recipe": "late", "output": tmp_path})
    return made


def test_options_come_back(folder: RunFolder, tmp_path: Path) -> None:
    assert folder.options() == {"recipe": "late", "output": str(tmp_path)}
    folder.create({"recipe": "paper"})  # nothing was trained yet
    assert folder.options() == {"recipe": "paper"}


def test_a_training_is_not_replaced(folder: RunFolder) -> None:
    folder.save("last.pt", {"epoch": 1})
    with pytest.raises(GraphScaleError, match="holds a training already; go on with --resume"):
        folder.create({})
    assert folder.options()["recipe"] == "late"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphScaleError, match=r"file/run: cannot be made .*another --output"):
        RunFolder(tmp_path / "file" / "run").create({})


@pytest.mark.parametrize("text", [None, "{broken", "[]", "[" * 100_000])
def test_no_options(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "options.json").write_text(text)
    with pytest.raises(GraphScaleError, match="holds no training to go on with"):
        RunFolder(tmp_path).options()


@pytest.mark.parametrize("name", ["options.json", "last.pt"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    folder = RunFolder(tmp_path)
    with pytest.raises(GraphScaleError, match="it is no regular file"):
        folder.load() if name == "last.pt" else folder.options()


def test_checkpoints(folder: RunFolder) -> None:
    assert folder.load() is None
    state = {"epoch": 3, "weights": {"w": torch.randn(2, 3, dtype=torch.bfloat16)}}
    folder.save("last.pt", state)
    found = folder.load()
    assert found["epoch"] == 3
    assert torch.equal(found["weights"]["w"], state["weights"]["w"])


def test_a_write_that_fails_leaves_the_last_checkpoint(folder: RunFolder) -> None:
    folder.save("last.pt", {"epoch": 3})
    with pytest.raises(AttributeError):
        folder.save("last.pt", {"epoch": 4, "bad": lambda: None})
    assert folder.load() == {"epoch": 3}
    assert sorted(each.name for each in folder.path.iterdir()) == ["last.pt", "options.json"]


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_checkpoint(folder: RunFolder, damage: str) -> None:
    folder.save("last.pt", {"weights": torch.zeros(1000)})
    path = folder.path / "last.pt"
    path.write_bytes(path.read_bytes()[:500] if damage == "cut" else b"no checkpoint")
    with pytest.raises(GraphScaleError, match=r"last\.pt: is not a checkpoint .*or a damaged one"):
        folder.load()


def test_the_log_has_a_line_per_epoch(folder: RunFolder) -> None:
    folder.log([FIRST])
    folder.log([FIRST, SECOND])
    with (folder.path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["straight_after_growth"] for row in rows] == ["", "0.5"]
    assert float(rows[1]["accuracy"]) == 0.875


def test_json_may_hold_paths(folder: RunFolder, tmp_path: Path) -> None:
    folder.write_json("result.json", {"path": tmp_path, "n": [1, 2.5]})
    text = (folder.path / "result.json").read_text()
    assert json.loads(text) == {"path": str(tmp_path), "n": [1, 2.5]}
    assert text.endswith("\n")


def test_tensorboard_reads_the_epochs(folder: RunFolder) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder.log([FIRST])
    folder.log([FIRST, SECOND])
    board = reader.EventAccumulator(str(folder.path / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("accuracy")]
    assert shown == [(1, 0.625), (2, 0.875)]
    assert [event.value for event in board.Scalars("image_size")] == [44.0, 64.0]
