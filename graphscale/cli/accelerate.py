"""`graphscale accelerate`: rewrite convolutions that FFTConv computes faster on this machine.

In: an ONNX file. Out: an accelerated ONNX file, and a table of measured times.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from graphscale.cli.file_names import beside
from graphscale.core.errors import GraphScaleError, about

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphscale.cli.outputs import Outputs
    from graphscale.cli.terminal import Terminal


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the command and its options to graphscale's parser."""
    parser = commands.add_parser(
        "accelerate",
        parents=[common],
        help="run convolutions by FFT where that is faster on this machine",
        description="Measure each convolution in onnxruntime and with the algorithms of FFTConv "
        "that may be faster, on this machine. Convolutions that FFTConv computes faster, by "
        "themselves and in the whole model, are rewritten. The result also runs in an onnxruntime "
        "without graphscale.",
    )
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL.accelerated.onnx")
    parser.add_argument(
        "--input-size", metavar="SIZE", help="height and width, if the model's own are symbolic"
    )
    parser.add_argument(
        "--batch", type=int, help="batch size, if the model's own is symbolic (default: 1)"
    )
    parser.add_argument(
        "--measure-again",
        action="store_true",
        help="use no measurement of earlier runs on this machine",
    )
    parser.add_argument("--dry-run", action="store_true", help="measure and show, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal, outputs: Outputs) -> None:
    """Measure and rewrite a file."""
    from graphscale.acceleration.accelerate_model import accelerate_model
    from graphscale.cli.tables import show_acceleration
    from graphscale.core.files import check_writable
    from graphscale.core.model_files import load_model, save_model

    if options.batch is not None and options.batch < 1:
        raise GraphScaleError(f"--batch {options.batch}: give at least 1")
    output = options.output if options.output is not None else beside(options.model, "accelerated")
    model = load_model(options.model)
    terminal.step(f"{options.model} is read")
    if not options.dry_run:
        outputs.expect(output)
        outputs.expect(output.with_name(output.name + ".data"))
        outputs.keep_apart(*model.meta["files"])
        check_writable(output)
    if options.batch is not None:
        _note_unused_batch(model, options.batch, terminal)
    with terminal.working("measuring", "measurements") as working:
        with about(options.model):
            result = accelerate_model(
                model,
                input_size=options.input_size,
                batch=options.batch or 1,
                measure_again=options.measure_again,
                progress=working,
            )
        terminal.step(f"{len(result.layers)} convolutions are measured or left alone")
        if not options.dry_run:
            save_model(model, output)
            terminal.step(f"{output} is written")
    with terminal.showing(tables=not options.json) as console:
        if options.json:
            print(json.dumps(asdict(result)))
            return
        show_acceleration(result, console, None if options.dry_run else str(output))


def _note_unused_batch(model: ir.Model, batch: int, terminal: Terminal) -> None:
    """Say that --batch has no effect on a model whose inputs all have a fixed batch."""
    from graphscale.passes.graph.graph_inputs import graph_inputs

    shapes = [value.shape for value in graph_inputs(model) if value.shape]
    if shapes and all(isinstance(shape[0], int) for shape in shapes):
        sizes = " and ".join(sorted({str(shape[0]) for shape in shapes}))
        terminal.note(f"--batch {batch} changes nothing: the model's own batch is {sizes}")
