"""What a training was started with: options out of range, and options.json there and back."""

import json
from pathlib import Path

import pytest

from graphscale import GraphScaleError
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.started import FolderOptions, Started
from graphscale.training.trainer import TrainingOptions


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"batch": 0}, "--batch 0: give at least one"), ({"workers": -2}, "--workers -2: give 0")],
)
def test_options_out_of_range(options: dict, sentence: str) -> None:
    with pytest.raises(GraphScaleError, match=sentence):
        FolderOptions(**options)


def test_options_are_the_same_after_json() -> None:
    """JSON knows no tuples."""
    options = TrainingOptions(epochs=7, schedule=RateSchedule("steps", 0.1, ((0.5, 0.1),)))
    folder_options = FolderOptions(batch=3, image_size=(16, 12), device="cpu")
    started = Started("m.onnx", "images", "late", True, options, folder_options)
    read = Started.from_json(json.loads(json.dumps(started.to_json())), Path("options.json"))
    assert read == started
    assert hash(options.schedule) == hash(read.options.schedule)


def test_elsewhere_only_workers_and_device_change() -> None:
    own = FolderOptions(batch=3, workers=4, device="cpu")
    started = Started("m.onnx", "images", "late", True, TrainingOptions(), own)
    assert started.elsewhere(None, None) == started
    moved = started.elsewhere(0, "cuda:1")
    assert moved.folder_options == FolderOptions(batch=3, workers=0, device="cuda:1")
    assert moved.options == started.options


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["recipe"], "slow", "recipe is none of"),
        (["baseline"], 1, "baseline is a number, not true or false"),
        (["options"], None, "options is None, not an object"),
        (["options", "schedule", "drops"], [[0.5]], r"drops\[0\] has 1 entries, not 2"),
        (["options", "epochs"], "4", "options.epochs is a text, not a whole number"),
        (["options", "optimizer"], "lbfgs", "unknown optimizer"),
        (["folder_options", "image_size"], [16], "image_size is not a height and a width"),
    ],
)
def test_damaged_options_are_named(place: list[str], value: object, said: str) -> None:
    """A folder to resume may hold anything."""
    started = Started("m.onnx", "images", "late", False, TrainingOptions(), FolderOptions())
    inner = content = json.loads(json.dumps(started.to_json()))
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(GraphScaleError, match=rf"run/options\.json: is damaged \(.*{said}"):
        Started.from_json(content, Path("run/options.json"))
