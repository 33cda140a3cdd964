"""`graphscale train`: shrink, train, grow and train on, from a folder of images."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphscale.core.errors import GraphScaleError

_EPILOG = """\
recipes:
  late         smaller images, and smaller kernels above 3x3, at the full learning rate for 70 % of
               the epochs; then the target, with the whole decay of the rate (default)
  paper        smaller images and kernels up to one epoch before the first drop of the rate
               (arXiv 1610.03623); needs --schedule steps
  progressive  smaller images alone, growing in steps
  target       the target alone

A network from an ONNX file trains as the file says: an export in eval mode has no Dropout left and
its BatchNormalization folded into the convolutions. Export for training with
torch.onnx.export(..., optimize=False, training=...), or give module:callable.
"""


def add_parser(commands) -> None:
    """Add the command to argparse's `commands`."""
    parser = commands.add_parser(
        "train",
        help="train a network on a folder of images: shrink, train, grow, train on",
        description="Train a network on a folder of images. The pre-train network is derived from "
        "the target, trained, grown in place, and the target trained on, by a recipe.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", help="an ONNX file, or module:callable that returns a torch module"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="one sub-folder of images per class, or train/ and val/ with these",
    )
    parser.add_argument("-o", "--output", type=Path, help="default: a folder MODEL.run")
    parser.add_argument(
        "--recipe",
        default="late",
        choices=("late", "paper", "progressive", "target"),
        help="see below (default: late)",
    )
    parser.add_argument("--baseline", action="store_true", help="train the target alone as well")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the training in the output folder"
    )
    _add_training(parser.add_argument_group("training"))
    _add_images(parser.add_argument_group("images"))
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.set_defaults(run=run)


def _add_training(group) -> None:
    group.add_argument("--epochs", type=int, default=30, help="of all stages (default: 30)")
    group.add_argument("--rate", type=float, help="learning rate (default: 0.1, AdamW 0.001)")
    group.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    group.add_argument("--momentum", type=float, default=0.9, help="of SGD (default: 0.9)")
    group.add_argument(
        "--schedule",
        choices=("steps", "linear", "cosine"),
        default="cosine",
        help="how the rate decays (default: cosine); steps at 50, 80 and 90 %% of the epochs",
    )
    group.add_argument(
        "--warm-up", type=float, default=1.0, metavar="EPOCHS", help="of the rate (default: 1)"
    )
    group.add_argument("--weight-decay", type=float, default=5e-4, help="default: 0.0005")
    group.add_argument(
        "--weight-decay-until", type=int, metavar="EPOCH", help="no weight decay from then on"
    )
    group.add_argument("--label-smoothing", type=float, default=0.0, help="default: 0")
    group.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    group.add_argument("--contiguous", action="store_true", help="no channels_last memory format")
    group.add_argument("--compile", action="store_true", help="use torch.compile")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")


def _add_images(group) -> None:
    group.add_argument("--batch", type=int, default=64, help="images in a batch (default: 64)")
    group.add_argument(
        "--image-size",
        metavar="SIZE",
        help="the target's height and width, as 224 or 224x192; of a file, where it leaves it open",
    )
    group.add_argument(
        "--channels", type=int, choices=(1, 3), default=3, help="of module:callable (default: 3)"
    )
    group.add_argument(
        "--augmentation",
        choices=("crop-flip", "crop", "none"),
        default="crop-flip",
        help="random parts of the images, mirrored or not (default: crop-flip)",
    )
    group.add_argument("--workers", type=int, help="processes that decode (default: all cores)")


def run(options: argparse.Namespace) -> None:
    """Train as the parsed `options` say, and show what came out."""
    from graphscale.training.train_folder import train_folder
    from graphscale.training.trainer import Interrupted

    if options.data is None and not options.resume:
        raise GraphScaleError("--data is missing; give a folder with a sub-folder per class")
    stem = Path(options.model.replace(":", ".")).name.removesuffix(".onnx")
    output = options.output or Path(f"{stem}.run")
    with _shown(options.json) as notices:
        try:
            results = train_folder(
                options.model,
                options.data or "",
                output,
                recipe_name=options.recipe,
                options=_training_options(options),
                folder_options=_folder_options(options),
                baseline=options.baseline,
                resume=options.resume,
                notices=notices,
            )
        except Interrupted:
            print(
                f"graphscale: interrupted; {output}/last.pt is written, go on with --resume",
                file=sys.stderr,
            )
            raise SystemExit(130) from None
    if options.json:
        print((output / "result.json").read_text(), end="")
        return
    _show(results, output)


def _training_options(options: argparse.Namespace):
    from graphscale.training.learning_rate import Schedule
    from graphscale.training.trainer import TrainingOptions

    default = 0.001 if options.optimizer == "adamw" else 0.1
    warm_up = options.warm_up / options.epochs if options.epochs > 1 else 0.0
    return TrainingOptions(
        epochs=options.epochs,
        rate=default if options.rate is None else options.rate,
        schedule=Schedule(options.schedule, warm_up=min(max(warm_up, 0.0), 0.5)),
        optimizer=options.optimizer,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        weight_decay_until=options.weight_decay_until,
        label_smoothing=options.label_smoothing,
        precision=options.precision,
        channels_last=not options.contiguous,
        compile=options.compile,
        seed=options.seed,
    )


def _folder_options(options: argparse.Namespace):
    from graphscale.training.train_folder import FolderOptions

    size = None
    if options.image_size is not None:
        parts = options.image_size.split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
            raise GraphScaleError(
                f"--image-size {options.image_size}: give height and width, as in 224 or 224x192"
            )
        size = (int(parts[0]), int(parts[-1]))
    return FolderOptions(
        batch=options.batch,
        augmentation=options.augmentation,
        image_size=size,
        channels=options.channels,
        workers=options.workers,
        device=options.device,
    )


@contextmanager
def _shown(quiet: bool) -> Iterator:
    """Notices as bars on a terminal, else as lines; Ctrl-C stops after the step at hand."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from graphscale.training.train_folder import Notices
    from graphscale.training.trainer import Events

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    task = bar.add_task("", total=None, visible=False, speed="")
    current: list = [None]

    def said(text: str) -> None:
        if not quiet:
            console.print(text)

    def checked(done: int, total: int) -> None:
        bar.update(
            task, description="checking images", completed=done, total=total, visible=True, speed=""
        )

    def started(stage: int, epoch: int, size: tuple[int, int]) -> None:
        said(f"stage {stage + 1}: images of {size[0]}×{size[1]}, from epoch {epoch + 1} on")

    def stepped(epoch: int, batch: int, batches: int) -> None:
        trainer = current[0]
        total = trainer.options.epochs * batches if trainer is not None else None
        bar.update(
            task,
            description=f"epoch {epoch + 1}",
            completed=epoch * batches + batch,
            total=total,
            visible=True,
        )

    def finished(record) -> None:
        bar.update(task, speed=f"{record.images_per_second:.0f} images/s")
        said(
            f"epoch {record.epoch:3}  {record.image_size:4} px  rate {record.rate:<8.3g} loss "
            f"{record.train_loss:.3f}  accuracy {record.accuracy:.1%}  "
            f"{record.images_per_second:.0f} images/s  {record.seconds:.0f} s"
        )

    def stop(number, frame) -> None:
        if current[0] is None or current[0].stop:
            raise KeyboardInterrupt
        current[0].stop = True

    notices = Notices(
        said, checked, Events(started, stepped, finished), lambda each: current.__setitem__(0, each)
    )
    main = threading.current_thread() is threading.main_thread()
    before = [signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)] if main else []
    bar.start()
    try:
        yield notices
    finally:
        bar.stop()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
            signal.signal(number, handler)


def _show(results, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe")
    for name in ("accuracy", "best", "training", "epochs by image size"):
        table.add_column(name, justify="right")
    for result in results:
        sizes: dict[int, int] = {}
        for record in result.records:
            sizes[record.image_size] = sizes.get(record.image_size, 0) + 1
        table.add_row(
            result.recipe,
            f"{result.accuracy:.2%}",
            f"{max(record.accuracy for record in result.records):.2%}",
            _duration(result.seconds),
            ", ".join(f"{count} at {size}" for size, count in sizes.items()),
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if len(results) == 2:
        ours, baseline = results
        saved = 1 - ours.seconds / baseline.seconds
        points = 100 * (ours.accuracy - baseline.accuracy)
        console.print(f"{saved:.0%} of the training time saved, accuracy {points:+.2f} points")
    console.print(f"[bold]written[/] {output / 'model.onnx'}, curves.png, result.json, log.csv")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
