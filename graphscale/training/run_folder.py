"""The folder of one training: options, checkpoints, logs, results; every file is replaced whole.

options.json      how the training was started
log.csv           one line per epoch
tensorboard/      the same for TensorBoard, where that package is installed
last.pt, best.pt  checkpoints (torch.save; weights, optimizer, random states, history)
result.json       the history and what it amounts to
model.onnx        the trained target
curves.png        accuracy over epochs and over hours
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from graphscale.core.errors import GraphScaleError
from graphscale.core.files import replacing


@dataclass
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: Its number, from 1 on.
        stage: Index of the recipe's stage; `image_size` is its height.
        rate: Learning rate at its end.
        train_loss, train_accuracy: Means over its images, while it ran.
        loss, accuracy: On the validation images, at this stage's size.
        images_per_second: In training.
        seconds: Of training so far, all epochs, growth included and validation left out.
        processor_seconds: The same as the processor counts them.
        straight_after_growth: Validation accuracy between growth and this epoch; None otherwise.
    """

    epoch: int
    stage: int
    image_size: int
    rate: float
    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float
    images_per_second: float
    seconds: float
    processor_seconds: float
    straight_after_growth: float | None = None


class RunFolder:
    """Reads and writes the files of one training."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._writer = None

    def create(self, options: Mapping[str, Any]) -> None:
        """Make the folder and note how the training is started.

        Raises:
            GraphScaleError: a training stands there already, or the folder cannot be made.
        """
        if (self.path / "last.pt").exists():
            raise GraphScaleError(
                f"{self.path}: holds a training already; go on with --resume, or give another "
                "--output"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GraphScaleError(
                f"{self.path}: cannot be made ({error.strerror}); give another --output"
            ) from None
        self.write_json("options.json", options)

    def options(self) -> dict[str, Any]:
        """What `create` noted.

        Raises:
            GraphScaleError: there is no training in the folder.
        """
        try:
            return json.loads((self.path / "options.json").read_text())
        except (OSError, ValueError) as error:
            raise GraphScaleError(
                f"{self.path}: holds no training to go on with ({error}); "
                "start one without --resume"
            ) from None

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write `data` as a file of the folder."""
        with replacing(self.path / name) as (file,):
            file.write((json.dumps(data, indent=1, default=str) + "\n").encode())

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; the file of that name is replaced when the new one is complete."""
        with replacing(self.path / name) as (file,):
            torch.save(dict(state), file)

    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        """A checkpoint, or None where there is none yet.

        Raises:
            GraphScaleError: the file is damaged.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise GraphScaleError(
                f"{path}: is not a checkpoint of graphscale train, or a damaged one "
                f"({' '.join(str(error).split())[:150]}); start again without --resume"
            ) from None

    def log(self, records: Sequence[EpochRecord]) -> None:
        """Write all epochs so far as a table, and the last one for TensorBoard."""
        text = io.StringIO()
        names = list(EpochRecord.__dataclass_fields__)
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in records)
        with replacing(self.path / "log.csv") as (file,):
            file.write(text.getvalue().encode())
        board = self._board()
        if board is not None and records:
            last = records[-1]
            for name in ("rate", "train_loss", "train_accuracy", "loss", "accuracy", "image_size"):
                board.add_scalar(name, getattr(last, name), last.epoch)
            board.flush()

    def _board(self):
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            self._writer = SummaryWriter(str(self.path / "tensorboard"))
        return self._writer
