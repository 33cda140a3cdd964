"""The graphscale command: parse, call the API, show."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from graphscale import __version__
from graphscale.core.errors import GraphScaleError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 for unusable input, or 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
        return 0
    except GraphScaleError as error:
        print(f"graphscale: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("graphscale: interrupted; nothing was written", file=sys.stderr)
        return 130
    except MemoryError:
        print("graphscale: not enough memory for this model", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphscale",
        description="Kernel rescaling: train a shrunken network, then grow it into the target.",
    )
    parser.add_argument("--version", action="version", version=f"graphscale {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_shrink(commands)
    _add_grow(commands)
    _add_accelerate(commands)
    return parser


def _add_shrink(commands) -> None:
    parser = commands.add_parser(
        "shrink",
        help="derive the pre-train network of a target network",
        description="Derive the pre-train network of a target: smaller kernels, smaller input, "
        "fewer rows at the fully-connected interface. The plan travels inside the result and "
        "beside it as .plan.json.",
    )
    parser.add_argument("model", type=Path, help="the target network, an ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL.pretrain.onnx")
    parser.add_argument(
        "--input-size",
        metavar="SIZE",
        help="pre-train height and width, as 160 or 160x128, or TARGET:PRETRAIN, as 224:160; for a "
        "model whose own size is symbolic one size is the target's (default: the first "
        "convolution's ratio decides)",
    )
    parser.add_argument(
        "--kernels",
        metavar="TABLE",
        help="kernel sizes, as 3:2,5:3, or a file with such a table; others follow the paper",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave the kernels of layers (or weights) of this name alone; * and ? match; "
        "may be repeated",
    )
    parser.add_argument(
        "--init",
        choices=("resize", "fresh"),
        help="resize the target's weights or draw fresh ones (default: resize where it is trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, write nothing")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of tables"
    )
    parser.set_defaults(run=_shrink)


def _add_grow(commands) -> None:
    parser = commands.add_parser(
        "grow",
        help="carry a trained pre-train network's weights into the target",
        description="Carry a trained pre-train network's weights back into the target network.",
    )
    parser.add_argument("checkpoint", type=Path, help="the trained pre-train network, an ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="default: CHECKPOINT.grown.onnx")
    parser.add_argument("--plan", type=Path, help="the .plan.json, if the checkpoint lost its plan")
    parser.add_argument("--target", type=Path, help="the target network, where there is no plan")
    parser.add_argument(
        "--resize",
        metavar="METHOD",
        default="bilinear",
        help="bilinear (default, half-pixel centres), bicubic, nearest or align-corners",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        const="",
        metavar="PICTURES.npy",
        help="run both networks on the same pictures (made-up ones by default) and show how far "
        "their outputs differ",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of tables"
    )
    parser.set_defaults(run=_grow)


def _add_accelerate(commands) -> None:
    parser = commands.add_parser(
        "accelerate",
        help="run convolutions by FFT where that is faster on this machine",
        description="Measure each convolution in onnxruntime and with every plan of FFTConv worth "
        "it, and rewrite those that FFTConv computes faster on this machine, alone and in the "
        "whole model; the rest stay. The result also runs in an onnxruntime without graphscale.",
    )
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL.accelerated.onnx")
    parser.add_argument("--input-size", metavar="SIZE", help="where the model's own is symbolic")
    parser.add_argument("--batch", type=int, default=1, help="where it is symbolic (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="measure and show, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.set_defaults(run=_accelerate)


def _shrink(options: argparse.Namespace) -> None:
    from graphscale.cli.tables import show_plan
    from graphscale.core.files import replacing
    from graphscale.core.kernel_sizes import parse_kernel_table
    from graphscale.core.model_files import load_model, save_model
    from graphscale.rescaling.plan import plan_model
    from graphscale.rescaling.shrink import shrink_model

    output = options.output or _beside(options.model, "pretrain")
    table = None
    if options.kernels:
        text = options.kernels
        if ":" not in text or Path(text).is_file():
            text = _read_text(Path(text))
        table = parse_kernel_table(text)
    with _working("shrinking") as working:
        model = load_model(options.model)
        wishes = {"input_size": options.input_size, "kernels": table, "keep": options.keep}
        if options.dry_run:
            plan = plan_model(model, **wishes)
        else:
            model, plan = shrink_model(
                model, init=options.init or "auto", seed=options.seed, **wishes
            )
        for pattern in options.keep:
            if not any(fnmatchcase(n, pattern) for x in plan.layers for n in (x.name, x.weight)):
                raise GraphScaleError(
                    f"{options.model}: no layer or weight has the name {pattern!r} of --keep; "
                    "names are listed by --dry-run --json"
                )
        if not options.dry_run:
            with replacing(output.with_suffix(".plan.json")) as (file,):
                file.write(plan.to_json().encode())
                file.flush()  # a disk too full for the plan gets no model either
                save_model(model, output, working)
    if options.json:
        print(json.dumps(plan.report()))
        return
    console = _console()
    show_plan(plan, console)
    if not options.dry_run:
        console.print(f"[bold]written[/]  {output} and {output.with_suffix('.plan.json').name}")


def _grow(options: argparse.Namespace) -> None:
    from graphscale.cli.tables import show_growth
    from graphscale.core.model_files import load_model, save_model
    from graphscale.rescaling.fidelity import compare
    from graphscale.rescaling.grow import grow_model

    output = options.output or _beside(options.checkpoint, "grown")
    with _working("growing") as working:
        checkpoint = load_model(options.checkpoint)
        grown, growth, plan = grow_model(
            checkpoint, plan=options.plan, target=options.target, resize=options.resize
        )
        save_model(grown, output, working)
        fidelity = None
        if options.check is not None:
            pictures = Path(options.check) if options.check else None
            fidelity = compare(options.checkpoint, output, plan, pictures)
    if options.json:
        report = {
            "checkpoint": str(options.checkpoint),
            "output": str(output),
            **asdict(growth),
            "check": [asdict(each) for each in fidelity] if fidelity is not None else None,
        }
        print(json.dumps(report))
        return
    console = _console()
    show_growth(growth, plan, fidelity, console)
    console.print(f"[bold]written[/] {output}")


def _accelerate(options: argparse.Namespace) -> None:
    from graphscale.acceleration.accelerate import accelerate_model
    from graphscale.cli.tables import show_acceleration
    from graphscale.core.files import check_writable
    from graphscale.core.model_files import load_model, save_model

    if options.batch < 1:
        raise GraphScaleError(f"--batch {options.batch}: give at least 1")
    output = options.output or _beside(options.model, "accelerated")
    model = load_model(options.model)
    if not options.dry_run:
        check_writable(output)
    with _working("measuring", "measurements") as working:
        result = accelerate_model(
            model, input_size=options.input_size, batch=options.batch, progress=working
        )
        if not options.dry_run:
            save_model(model, output)
    if options.json:
        print(json.dumps(asdict(result)))
        return
    console = _console()
    show_acceleration(result, console)
    if not options.dry_run:
        console.print(f"[bold]written[/] {output}")


def _beside(path: Path, word: str) -> Path:
    stem = path.name.removesuffix(".onnx")
    return path.with_name(f"{stem}.{word}.onnx")


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise GraphScaleError(
            f"{path}: cannot be read as a kernel table ({error}); give 3:2,5:3 or a text file"
        ) from None


def _console():
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 140
    return Console(highlight=False, width=wide)


class _working:
    """A progress bar on standard error, of bytes or other units, where a person can see it."""

    def __init__(self, what: str, unit: str | None = None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
        )

        counts = [MofNCompleteColumn(), TextColumn(unit)] if unit else [DownloadColumn()]
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            *counts,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_) -> None:
        self._bar.stop()


if __name__ == "__main__":
    sys.exit(main())
