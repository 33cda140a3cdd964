"""`train_folder`: train a target network on a folder of images by a recipe, as `graphscale train`.

In: a network, a folder of images, an output folder and options. Out: the trained target, and in the
output folder model.onnx, curves.png, result.json, the log and the checkpoints.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from graphscale.core.errors import GraphScaleError
from graphscale.training.curves import draw_curves
from graphscale.training.image_batches import FolderBatches, Normalization, torchvision_transform
from graphscale.training.image_folder import (
    ImageFolder,
    check_images,
    joined_statistics,
    read_folder,
)
from graphscale.training.ranks import Ranks, is_restart, joined_ranks, local_ranks, rank_device
from graphscale.training.recipes import Recipe, recipe
from graphscale.training.rescaled_networks import RescaledNetworks
from graphscale.training.run_folder import EpochRecord, RunFolder
from graphscale.training.started import FolderOptions, Started
from graphscale.training.target import Target, read_target
from graphscale.training.trainer import (
    Events,
    Trainer,
    TrainingOptions,
    seed_all,
)


@dataclass
class TrainingResult:
    """The result of one training.

    Attributes:
        recipe: Name of the recipe.
        records: One per epoch.
        output: The folder with the trained target as model.onnx.
        network: The trained target.
    """

    recipe: str
    records: list[EpochRecord] = field(default_factory=list)
    output: Path = Path()
    network: nn.Module | None = None

    @property
    def accuracy(self) -> float:
        """Accuracy on the validation images after the last epoch, from 0 to 1."""
        return self.records[-1].accuracy

    @property
    def seconds(self) -> float:
        """Seconds of training, with growth and without validation."""
        return self.records[-1].seconds


@dataclass
class Notices:
    """Functions that `train_folder` calls to report its progress; by default they do nothing.

    Attributes:
        message: Is called with a line of text for the user.
        images_checked: Is called with (images checked, images in all).
        events: The functions that the training loop calls.
        trainer: Is called with each `Trainer` before it runs, and with None after it has ended
            without an error.
    """

    message: Callable[[str], None] = lambda text: None
    images_checked: Callable[[int, int], None] = lambda done, total: None
    events: Events = field(default_factory=Events)
    trainer: Callable[[Trainer | None], None] = lambda trainer: None


def train_folder(
    model: str | os.PathLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    recipe_name: str = "late",
    options: TrainingOptions | None = None,
    folder_options: FolderOptions | None = None,
    baseline: bool = False,
    resume: bool = False,
    notices: Notices | None = None,
) -> list[TrainingResult]:
    """Train the network `model` on the images in `data`, the results in `output`.

    Args:
        model: Path of an ONNX file, or 'module:callable'.
        data: A folder with a sub-folder of images per class, or with train/ and val/ of these.
        output: The folder to write to; see `run_folder`.
        recipe_name: 'late', 'paper', 'progressive' or 'target'.
        options: How the target alone would be trained; a recipe may take fewer epochs.
        folder_options: How the images are read.
        baseline: Also train the target alone, in the sub-folder baseline of `output`.
        resume: Continue the training in `output` with what it was started with; of the other
            arguments only workers and device in `folder_options` are used then, if given.
        notices: Functions that are called on the way.

    Under torchrun every rank calls it with the same arguments and trains on its share of each
    batch; the first rank writes the files. If torchrun starts the ranks again after one has ended,
    the training goes on from its last checkpoint.

    Returns:
        The recipe's result and, with `baseline`, the baseline's after it.

    Raises:
        GraphScaleError: the network, an image or an option cannot be used; says what to do.
        Interrupted: the training was stopped; it can be resumed.
    """
    notices = notices or Notices()
    folder = RunFolder(output)
    given = folder_options or FolderOptions()
    device = given.device
    resumes = resume or is_restart()
    # Other machines than the first rank's may lack the folder.
    if device is None and resumes and (folder.path / "options.json").exists():
        device = started_with(output).folder_options.device
    with joined_ranks(device or ("cuda" if torch.cuda.is_available() else "cpu")) as ranks:
        resume = resume or (is_restart() and ranks.first((folder.path / "options.json").exists))
        started = Started(
            str(model), str(data), recipe_name, baseline, options or TrainingOptions(), given
        )
        if resume:
            content = ranks.first(folder.options)
            started = Started.from_json(content, folder.path / "options.json")
            started = started.elsewhere(given.workers, given.device)
        return _train_all(started, folder, resume, notices, ranks)


def started_with(output: str | os.PathLike) -> Started:
    """What the training in the folder `output` was started with.

    Raises:
        GraphScaleError: there is none, or its options are damaged.
    """
    folder = RunFolder(output)
    return Started.from_json(folder.options(), folder.path / "options.json")


def _train_all(
    given: Started, folder: RunFolder, resume: bool, notices: Notices, ranks: Ranks
) -> list[TrainingResult]:
    """Train the recipe's network and the baseline, and write the results."""
    model, data, chosen = given.model, given.data, recipe(given.recipe)
    options, folder_options, baseline = given.options, given.folder_options, given.baseline
    own = options.for_recipe(chosen)
    chosen.ends(own.epochs, own.schedule.milestones(own.epochs))
    images = ImageFolder(Path(data), (), (), ())

    def read() -> tuple:
        nonlocal images
        images = read_folder(data)
        return len(images.train), len(images.validation), images.classes

    if len(set(ranks.each(read))) > 1:
        raise GraphScaleError(f"{data}: the ranks see different images; give all the same folder")
    seed_all(options.seed)  # a callable draws the network's first weights
    target = read_target(
        model, len(images.classes), folder_options.image_size, folder_options.channels
    )
    for hint in target.hints:
        notices.message(f"{model}: {hint}")
    batches, normalization = _batches(images, target, options, folder_options, notices, ranks)
    if not resume:
        started = {
            **given.to_json(),
            "classes": images.classes,
            "normalization": asdict(normalization),
            "versions": _versions(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        ranks.first(lambda: folder.create(started))
    trained = target, batches, options
    results = [_train(chosen, *trained, folder, folder_options, notices, ranks)]
    if baseline:
        beside = RunFolder(folder.path / "baseline")
        ranks.first(lambda: beside.path.mkdir(exist_ok=True))
        results.append(_train(recipe("target"), *trained, beside, folder_options, notices, ranks))
    if ranks.is_first:
        _write_results(results, folder, options, folder_options)
    return results


def _write_results(
    results: list[TrainingResult],
    folder: RunFolder,
    options: TrainingOptions,
    folder_options: FolderOptions,
) -> None:
    draw_curves({result.recipe: result.records for result in results}, folder.path / "curves.png")
    folder.write_json(
        "result.json",
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": _device_name(folder_options),
            "versions": _versions(),
            "seed": options.seed,
            "results": [
                {
                    "recipe": result.recipe,
                    "accuracy": result.accuracy,
                    "seconds": result.seconds,
                    "epochs": [asdict(record) for record in result.records],
                }
                for result in results
            ],
        },
    )


def _train(
    chosen: Recipe,
    target: Target,
    batches: FolderBatches,
    options: TrainingOptions,
    folder: RunFolder,
    folder_options: FolderOptions,
    notices: Notices,
    ranks: Ranks,
) -> TrainingResult:
    networks = RescaledNetworks(target.network, target.example, chosen, options.seed)
    own = options.for_recipe(chosen)
    notices.message(f"recipe {chosen.name}, {own.epochs} epochs")
    trainer = Trainer(
        networks,
        batches,
        chosen,
        own,
        folder,
        device=_device(folder_options),
        events=notices.events,
        ranks=ranks,
    )
    notices.trainer(trainer)
    network = trainer.run(ranks.first(folder.load))
    # Not after an error: a signal on its way out, as torchrun sends to ranks that miss another one,
    # stops the trainer, which has stopped, and the error is what is reported.
    notices.trainer(None)
    if ranks.is_first:
        _write_model(network, target, batches.normalization, folder.path / "model.onnx")
    return TrainingResult(chosen.name, trainer.records, folder.path, network)


def _write_model(
    network: nn.Module, target: Target, normalization: Normalization, path: Path
) -> None:
    """Write the trained target as an ONNX file."""
    import graphscale

    network = copy.deepcopy(network).cpu().eval()
    if target.from_onnx:
        graphscale.save(network, path)
        return
    example = torch.cat([target.example] * 2)
    graphscale.export(
        network,
        (example,),
        path,
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )


def _batches(
    images: ImageFolder,
    target: Target,
    options: TrainingOptions,
    folder_options: FolderOptions,
    notices: Notices,
    ranks: Ranks,
) -> tuple[FolderBatches, Normalization]:
    workers = folder_options.workers
    if workers is None:
        workers = max(len(os.sched_getaffinity(0)) // local_ranks(), 1)
    notices.message(
        f"{len(images.train)} training and {len(images.validation)} validation images of "
        f"{len(images.classes)} classes"
    )
    torchvision_transform(folder_options.augmentation)  # say now, not after all images, if it fails
    own = [*images.train, *images.validation][ranks.rank :: ranks.count]
    found = joined_statistics(
        ranks.each(
            lambda: check_images(own, target.channels, max(workers, 1), notices.images_checked)
        )
    )
    if found.grey and target.channels == 3:
        notices.message(f"{found.grey} images have no colour")
    if found.smallest < max(target.example.shape[2:]):
        notices.message(
            f"the smallest image has {found.smallest} pixels and is enlarged for training"
        )
    normalization = Normalization(found.mean, found.deviation)
    batches = FolderBatches(
        images.train,
        images.validation,
        channels=target.channels,
        batch=folder_options.batch,
        augmentation=folder_options.augmentation,
        normalization=normalization,
        workers=workers,
        device=_device(folder_options),
        seed=options.seed,
        share=(ranks.rank, ranks.count),
    )
    return batches, normalization


def _device(folder_options: FolderOptions) -> torch.device:
    name = rank_device(folder_options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a tensor on meta has no numbers
    except (RuntimeError, AssertionError) as error:
        raise GraphScaleError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0][:150]}); "
            "give --device cpu"
        ) from None
    return device


def _device_name(folder_options: FolderOptions) -> str:
    device = _device(folder_options)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


def _versions() -> dict[str, str]:
    import graphscale

    return {"graphscale": graphscale.__version__, "torch": torch.__version__}
