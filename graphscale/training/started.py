"""What a training on a folder is started with, and its file options.json, for a later --resume."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from graphscale.core.errors import GraphScaleError
from graphscale.core.json_fields import JsonError, JsonObject, entries, number
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.recipes import RECIPES
from graphscale.training.trainer import TrainingOptions


@dataclass(frozen=True)
class FolderOptions:
    """How a folder of images is read.

    Attributes:
        batch: Images in a batch.
        augmentation: 'crop-flip', 'crop', 'trivial-augment', 'rand-augment' or 'none'.
        image_size: The target's height and width, for a network that leaves them open.
        channels: 1 or 3, for a network that a callable makes.
        workers: Processes that decode images; None for one per processor core.
        device: 'cpu', 'cuda' …; None for a GPU if there is one, else the CPU.
    """

    batch: int = 64
    augmentation: str = "crop-flip"
    image_size: tuple[int, int] | None = None
    channels: int = 3
    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise GraphScaleError(f"--batch {self.batch}: give at least one image")
        if self.workers is not None and self.workers < 0:
            raise GraphScaleError(f"--workers {self.workers}: give 0 or more processes")


@dataclass(frozen=True)
class Started:
    """What a training is started with.

    Attributes:
        model: Path of an ONNX file, or 'module:callable'.
        data: The folder of images.
        recipe: Name of the recipe.
        baseline: Whether the target alone is trained as well.
        options: How the target alone would be trained.
        folder_options: How the images are read.
    """

    model: str
    data: str
    recipe: str
    baseline: bool
    options: TrainingOptions
    folder_options: FolderOptions

    def elsewhere(self, workers: int | None, device: str | None) -> Started:
        """The same with other worker processes and another device, where these are given."""
        own = self.folder_options
        workers = own.workers if workers is None else workers
        return replace(
            self, folder_options=replace(own, workers=workers, device=device or own.device)
        )

    def to_json(self) -> dict[str, Any]:
        """The content of options.json, as `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> Started:
        """What a training was started with, from the content of its options.json at `path`.

        Raises:
            GraphScaleError: a field is missing, of another type, or out of range; names the file.
        """
        names = [each.name for each in fields(cls)]
        try:
            started = JsonObject({name: content.get(name) for name in names}, "", names)
            return cls(
                *(started.text("model"), started.text("data"), started.text("recipe", RECIPES)),
                started.flag("baseline"),
                _training_options(started.get("options")),
                _folder_options(started.get("folder_options")),
            )
        except (JsonError, GraphScaleError) as error:
            raise GraphScaleError(
                f"{path}: is damaged ({error}); start the training again without --resume"
            ) from None


def _training_options(value: object) -> TrainingOptions:
    given = JsonObject(value, "options", [each.name for each in fields(TrainingOptions)])
    schedule = JsonObject(
        given.get("schedule"), "options.schedule", [each.name for each in fields(RateSchedule)]
    )
    until = given.get("weight_decay_until")
    return TrainingOptions(
        epochs=given.integer("epochs", 1),
        rate=given.number("rate"),
        schedule=RateSchedule(
            schedule.text("kind"), schedule.number("warm_up"), tuple(schedule.list("drops", _drop))
        ),
        optimizer=given.text("optimizer"),
        momentum=given.number("momentum"),
        weight_decay=given.number("weight_decay"),
        weight_decay_until=None if until is None else given.integer("weight_decay_until", 0),
        label_smoothing=given.number("label_smoothing"),
        precision=given.text("precision"),
        channels_last=given.flag("channels_last"),
        compile=given.flag("compile"),
        seed=given.integer("seed", 0),
        gradient=given.text("gradient"),
    )


def _drop(value: object, place: str) -> tuple[float, float]:
    """One drop of a schedule; JSON knows no tuples."""
    pair = [number(*entry) for entry in entries(value, place)]
    if len(pair) != 2:
        raise JsonError(f"{place} has {len(pair)} entries, not 2")
    return pair[0], pair[1]


def _folder_options(value: object) -> FolderOptions:
    given = JsonObject(value, "folder_options", [each.name for each in fields(FolderOptions)])
    size, workers = given.get("image_size"), given.get("workers")
    if size is not None and len(given.sizes("image_size")) != 2:
        raise JsonError("folder_options.image_size is not a height and a width")
    return FolderOptions(
        batch=given.integer("batch", 1),
        augmentation=given.text("augmentation"),
        image_size=None if size is None else tuple(given.sizes("image_size")),
        channels=given.integer("channels", 1),
        workers=None if workers is None else given.integer("workers", 0),
        device=given.optional_text("device"),
    )
