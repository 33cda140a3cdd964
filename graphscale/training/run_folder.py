"""The folder of one training, with its options, checkpoints, logs and results.

A file is replaced only when the new one is complete, so that an interruption damages none. Files:

options.json      the options with which the training was started
log.csv           one line per epoch
tensorboard/      the same for TensorBoard, if that package is installed
last.pt, best.pt  checkpoints (torch.save; weights, optimizer, random states, epochs so far)
result.json       all epochs, the accuracy reached and the seconds of training
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
from graphscale.core.files import check_regular, replacing


@dataclass
class EpochRecord:
    """The results of one epoch.

    Attributes:
        epoch: Its number, from 1 on.
        stage: Index of the recipe's stage, from 0 on.
        image_size: Height of the stage's images.
        rate: Learning rate at the end of the epoch.
        train_loss, train_accuracy: Means over the training images of the epoch.
        loss, accuracy: On the validation images, at the stage's image size.
        images_per_second: In training.
        seconds: Of training since the start, over all epochs, with growth and without validation.
        processor_seconds: The same in processor time (all threads) of this process.
        straight_after_growth: Validation accuracy between growth and this epoch, if the network
            grew before this epoch; otherwise None.
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
        """Make the folder, and write the training's options into it.

        Raises:
            GraphScaleError: the folder holds a training already, or it cannot be made.
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
        """The options that `create` wrote.

        Raises:
            GraphScaleError: there is no training in the folder, or its options are damaged.
        """
        path = self.path / "options.json"
        try:
            check_regular(path)
            content = json.loads(path.read_text())
            if not isinstance(content, dict):
                raise ValueError("options.json is no JSON object")
            return content
        except (OSError, ValueError, RecursionError) as error:
            raise GraphScaleError(
                f"{self.path}: holds no training to go on with ({error}); "
                "start one without --resume"
            ) from None

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write `data` as a file of the folder."""
        with replacing(self.path / name) as (file,):
            file.write((json.dumps(data, indent=1, default=str) + "\n").encode())

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint by torch.save."""
        with replacing(self.path / name) as (file,):
            torch.save(dict(state), file)

    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Read a checkpoint onto the CPU; None if there is none yet.

        Raises:
            GraphScaleError: the file is damaged or no checkpoint.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            check_regular(path)
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise GraphScaleError(
                f"{path}: is not a checkpoint of graphscale train, or a damaged one "
                f"({' '.join(str(error).split())[:150]}); start again without --resume"
            ) from None

    def log(self, records: Sequence[EpochRecord]) -> None:
        """Write all epochs so far to log.csv, and the last one for TensorBoard."""
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
