"""`graphscale grow`: carry a trained pre-train network's weights into the target network.

In: an ONNX file, the checkpoint. Out: an ONNX file, the grown target, and a table of its weights.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from graphscale.cli.file_names import beside
from graphscale.core.errors import about

if TYPE_CHECKING:
    from graphscale.cli.outputs import Outputs
    from graphscale.cli.terminal import Terminal
    from graphscale.rescaling.fidelity import Fidelity


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the command and its options to graphscale's parser."""
    parser = commands.add_parser(
        "grow",
        parents=[common],
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
        metavar="IMAGES.npy",
        help="run both networks on the same images (synthetic ones by default) and show how far "
        "their outputs differ",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of tables"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal, outputs: Outputs) -> None:
    """Grow a file and, with --check, compare the outputs of both networks."""
    from graphscale.cli.tables import show_growth
    from graphscale.core.model_files import load_model, save_model
    from graphscale.rescaling.check_runs import check_grown_runs
    from graphscale.rescaling.fidelity import check_images, compare
    from graphscale.rescaling.grow import grow_model

    output = options.output if options.output is not None else beside(options.checkpoint, "grown")
    outputs.expect(output)
    outputs.expect(output.with_name(output.name + ".data"))
    with terminal.working("growing") as working:
        checkpoint = load_model(options.checkpoint)
        terminal.step(f"{options.checkpoint} is read")
        files = (*checkpoint.meta["files"], options.plan, options.target)
        outputs.keep_apart(*files, options.check or None)
        with about(options.checkpoint, options.plan, options.target):
            grown, growth, plan = grow_model(
                checkpoint, plan=options.plan, target=options.target, resize=options.resize
            )
        terminal.step(f"{len(growth.resized)} weights are resized, {len(growth.copied)} copied")
        images, fidelity = None, None
        if options.check is not None:
            images = check_images(plan, Path(options.check) if options.check else None)
        with about(options.checkpoint, output):  # resized weights are computed now
            if images is None:
                check_grown_runs(grown, options.checkpoint, plan)
            else:
                fidelity = compare(options.checkpoint, grown, plan, images)
            save_model(grown, output, working)
        terminal.step(f"{output} is written")
    if fidelity is not None:
        compared = {each.output for each in fidelity}
        if missing := {str(each.name) for each in grown.graph.outputs} - compared:
            terminal.note(
                f"--check leaves out {', '.join(sorted(missing))}, whose values are laid along "
                "another axis than height or width"
            )
    with terminal.showing(tables=not options.json) as console:
        if options.json:
            report = {
                "checkpoint": str(options.checkpoint),
                "output": str(output),
                "resized": growth.resized,
                "copied": growth.copied,
                "separated": growth.untied,
                "renamed": growth.renamed,
                "check": None if fidelity is None else [_check_report(each) for each in fidelity],
            }
            print(json.dumps(report))
            return
        show_growth(growth, plan, fidelity, console, str(output))


def _check_report(fidelity: Fidelity) -> dict[str, object]:
    """One entry of "check" in the JSON; scripts rely on its keys, so "pictures" stays."""
    report = asdict(fidelity)
    report["pictures"] = report.pop("images")
    return report
