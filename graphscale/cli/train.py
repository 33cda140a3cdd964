"""`graphscale train`: train a network on a folder of images, with growth.

In: an ONNX file or the name of a function that makes a torch module, and a folder of images. Out: a
folder with the trained target, its curves, log and checkpoints, and a table of the results.
"""

from __future__ import annotations

import argparse
import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphscale.core.errors import GraphScaleError

if TYPE_CHECKING:
    from graphscale.cli.outputs import Outputs
    from graphscale.cli.terminal import Terminal
    from graphscale.training.started import FolderOptions
    from graphscale.training.trainer import TrainingOptions

_MAX_SIDE = 16384  # pixels, of --image-size

_EPILOG = """\
recipes:
  late         smaller images, which become larger in steps, at the full learning rate for 80 % of
               the training; then the target, while the rate decays; 83 % of --epochs (default)
  paper        smaller images and kernels until one epoch before the first drop of the rate
               (arXiv 1610.03623), then the target; needs --schedule steps
  progressive  smaller images, which become larger in steps; the rate follows its schedule
  target       the target alone

An ONNX file that was exported in evaluation mode has no Dropout, and its BatchNormalization is
folded into the convolutions; neither is trained then. Export for training with
torch.onnx.export(network.train(), ..., optimize=False), or give module:callable.

On several GPUs or machines, torchrun starts one process for each GPU:
torchrun --nproc-per-node 8 -m graphscale train MODEL ...; --batch is the size of all ranks' images
together.
"""


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the command and its options to graphscale's parser."""
    parser = commands.add_parser(
        "train",
        parents=[common],
        help="train a network on a folder of images: shrink, train, grow, train on",
        description="Train a network on a folder of images. The pre-train network is derived from "
        "the target, trained, and grown in place; then the target is trained. A recipe says when.",
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
        "--resume",
        action="store_true",
        help="continue the training in the output folder with the options that it was started "
        "with; others are refused, but for --workers and --device",
    )
    _add_training(parser.add_argument_group("training"))
    _add_images(parser.add_argument_group("images"))
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.set_defaults(run=run)


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--epochs",
        type=int,
        default=30,
        help="of a training of the target alone (default: 30); a recipe may need fewer",
    )
    group.add_argument("--rate", type=float, help="learning rate (default: 0.1; for AdamW 0.001)")
    group.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    group.add_argument("--momentum", type=float, default=0.9, help="of SGD (default: 0.9)")
    group.add_argument(
        "--schedule",
        choices=("steps", "linear", "cosine"),
        default="cosine",
        help="how the rate decays (default: cosine); steps at 50, 80 and 90 %% of the epochs",
    )
    group.add_argument(
        "--warm-up",
        type=float,
        default=1.0,
        metavar="EPOCHS",
        help="of the learning rate (default: 1)",
    )
    group.add_argument("--weight-decay", type=float, default=5e-4, help="default: 0.0005")
    group.add_argument(
        "--weight-decay-until",
        type=int,
        metavar="EPOCH",
        help="no weight decay after so many epochs",
    )
    group.add_argument("--label-smoothing", type=float, default=0.0, help="default: 0")
    group.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    group.add_argument(
        "--contiguous", action="store_true", help="do not use the channels_last memory format"
    )
    group.add_argument(
        "--gradient",
        choices=("mean", "onebit"),
        default="mean",
        help="between ranks of torchrun: dense, or one bit per element after the first epoch",
    )
    group.add_argument("--compile", action="store_true", help="use torch.compile")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch", type=int, default=64, help="images in a batch, of all ranks (default: 64)"
    )
    group.add_argument(
        "--image-size",
        metavar="SIZE",
        help="the target's height and width, such as 224 or 224x192; needed for module:callable, "
        "and for a file that leaves them open",
    )
    group.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="of the input, for module:callable (default: 3)",
    )
    group.add_argument(
        "--augmentation",
        choices=("crop-flip", "crop", "trivial-augment", "rand-augment", "none"),
        default="crop-flip",
        help="random parts of the images, mirrored or not, and torchvision's TrivialAugmentWide or "
        "RandAugment after both (default: crop-flip)",
    )
    group.add_argument(
        "--workers", type=int, help="processes that decode images (default: all cores)"
    )


def run(options: argparse.Namespace, terminal: Terminal, outputs: Outputs) -> None:
    """Train, and show the results."""
    from graphscale.cli.resumed_options import refuse_other_options
    from graphscale.cli.tables import show_trainings
    from graphscale.cli.training_progress import TrainingProgress
    from graphscale.training.keep_memory import keep_freed_memory
    from graphscale.training.ranks import is_first_rank
    from graphscale.training.train_folder import train_folder

    first = is_first_rank()
    terminal.quiet = terminal.quiet or not first
    if options.data is None and not options.resume:
        raise GraphScaleError("--data is missing; give a folder with a sub-folder per class")
    stem = Path(options.model.replace(":", ".")).name.removesuffix(".onnx")
    output = options.output or Path(f"{stem}.run")
    outputs.expect(output / "model.onnx", output / "last.pt")
    outputs.keep_apart(options.model)
    given = _training_options(options), _folder_options(options)
    if options.resume and first:
        refuse_other_options(options, _defaults(options.model), given, output)
    for package in ("PIL", "matplotlib"):  # needed at the end as well: say now that one is missing
        importlib.import_module(package)
    keep_freed_memory()  # this process does nothing but train
    with TrainingProgress(terminal) as notices:
        results = train_folder(
            options.model,
            options.data or "",
            output,
            recipe_name=options.recipe,
            options=given[0],
            folder_options=given[1],
            baseline=options.baseline,
            resume=options.resume,
            notices=notices,
        )
    if not first:
        return
    with terminal.showing(tables=not options.json) as console:
        if options.json:
            print((output / "result.json").read_text(), end="")
            return
        show_trainings(results, output, console)


def _defaults(model: str) -> argparse.Namespace:
    """The options of a command that names nothing but the model."""
    commands = argparse.ArgumentParser().add_subparsers()
    add_parser(commands, argparse.ArgumentParser(add_help=False))
    return commands.choices["train"].parse_args([model])


def _training_options(options: argparse.Namespace) -> TrainingOptions:
    from graphscale.training.rate_schedule import RateSchedule
    from graphscale.training.trainer import TrainingOptions

    if not 0 <= options.warm_up < math.inf:
        raise GraphScaleError(f"--warm-up {options.warm_up}: give 0 or more epochs, but finite")
    default = 0.001 if options.optimizer == "adamw" else 0.1
    given = TrainingOptions(
        epochs=options.epochs,
        rate=default if options.rate is None else options.rate,
        schedule=RateSchedule(options.schedule),
        optimizer=options.optimizer,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        weight_decay_until=options.weight_decay_until,
        label_smoothing=options.label_smoothing,
        precision=options.precision,
        channels_last=not options.contiguous,
        compile=options.compile,
        seed=options.seed,
        gradient=options.gradient,
    )
    warm_up = min(options.warm_up / given.epochs, 0.5) if given.epochs > 1 else 0.0
    return replace(given, schedule=replace(given.schedule, warm_up=warm_up))


def _folder_options(options: argparse.Namespace) -> FolderOptions:
    from graphscale.training.started import FolderOptions

    size = None
    if options.image_size is not None:
        parts = options.image_size.split("x")
        fits = [part.isdecimal() and len(part) < 6 and 0 < int(part) <= _MAX_SIDE for part in parts]
        if len(parts) > 2 or not all(fits):
            raise GraphScaleError(
                f"--image-size {options.image_size}: give height and width, as in 224 or 224x192, "
                f"up to {_MAX_SIDE}"
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
