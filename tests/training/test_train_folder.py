"""`train_folder` from Python: what it reports, what it writes, options that survive a resume."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from graphscale import GraphScaleError
from graphscale.training.started import FolderOptions
from graphscale.training.train_folder import Notices, TrainingResult, train_folder
from graphscale.training.trainer import Events, TrainingOptions
from tests.training.test_run_folder import FIRST, SECOND
from tests.training.test_target import write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright grey images."""
    root = tmp_path_factory.mktemp("data")
    for name, value in (("bright", 200), ("dark", 60)):
        (root / name).mkdir()
        for index in range(12):
            pixels = np.full((10, 14), value + index, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_training_of_the_target(data: Path, tmp_path: Path) -> None:
    said, checked, epochs, trainers = [], [], [], []
    model = write(tmp_path / "model.onnx")
    before = Path(model).read_bytes()
    (result,) = train_folder(
        model,
        data,
        tmp_path / "run",
        recipe_name="target",
        options=TrainingOptions(epochs=2, rate=0.01, seed=3),
        folder_options=FolderOptions(batch=4, workers=0, device="cpu"),
        notices=Notices(
            said.append,
            lambda *counts: checked.append(counts),
            Events(epoch_done=epochs.append),
            trainers.append,
        ),
    )
    assert said[-1].startswith("recipe target")
    assert "24 images have no colour" in said
    assert "the smallest image has 10 pixels and is enlarged for training" in said
    assert checked[-1] == (24, 24)
    assert epochs == result.records
    assert [each.epoch for each in epochs] == [1, 2]
    assert trainers[0].records is result.records
    assert trainers[1] is None
    report = json.loads((tmp_path / "run" / "result.json").read_text())
    assert report["seed"] == 3
    assert report["results"][0]["epochs"] == [asdict(each) for each in result.records]
    assert report["results"][0]["accuracy"] == result.accuracy == epochs[-1].accuracy
    # The trained weights are in the file's own graph; the file that was given stays.
    saved = onnx.load(tmp_path / "run" / "model.onnx")
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in saved.graph.initializer}
    np.testing.assert_array_equal(weights["w"], result.network.state_dict()["w"].numpy())
    assert Path(model).read_bytes() == before
    with pytest.raises(GraphScaleError, match="holds a training already"):
        train_folder(
            model, data, tmp_path / "run", folder_options=FolderOptions(batch=4, workers=0)
        )
    again = train_folder("not used", "nor this", tmp_path / "run", resume=True)
    assert again[0].records == result.records  # it was complete


def test_a_trainer_that_failed_is_not_forgotten(data: Path, tmp_path: Path) -> None:
    """Else a signal while its error is on the way out would take the error's place."""

    def fail(record: object) -> None:
        raise GraphScaleError("another rank has ended")

    trainers = []
    with pytest.raises(GraphScaleError, match="another rank has ended"):
        train_folder(
            write(tmp_path / "model.onnx"),
            data,
            tmp_path / "run",
            recipe_name="target",
            options=TrainingOptions(epochs=1, rate=0.01),
            folder_options=FolderOptions(batch=4, workers=0, device="cpu"),
            notices=Notices(events=Events(epoch_done=fail), trainer=trainers.append),
        )
    assert len(trainers) == 1
    assert trainers[0] is not None


def test_a_device_that_is_not_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphScaleError, match=r"device 'abacus' cannot be used .*--device cpu"):
        train_folder(
            write(tmp_path / "model.onnx"),
            data,
            tmp_path / "run",
            options=TrainingOptions(epochs=4),
            folder_options=FolderOptions(batch=4, workers=0, device="abacus"),
        )
    assert not (tmp_path / "run").exists()


def test_a_results_accuracy_and_duration_are_the_last_epochs() -> None:
    result = TrainingResult("late", [FIRST, SECOND])
    assert (result.accuracy, result.seconds) == (0.875, 30.0)
