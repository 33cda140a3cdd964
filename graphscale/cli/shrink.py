"""`graphscale shrink`: derive the pre-train network of a target.

In: an ONNX file, the target. Out: an ONNX file, the pre-train network, its plan beside it as
.plan.json, and a table of the layers.
"""

from __future__ import annotations

import argparse
import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphscale.cli.file_names import beside
from graphscale.core.errors import GraphScaleError, about
from graphscale.core.files import check_regular, replacing

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphscale.cli.outputs import Outputs
    from graphscale.cli.terminal import Terminal
    from graphscale.core.plan import Plan


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the command and its options to graphscale's parser."""
    parser = commands.add_parser(
        "shrink",
        parents=[common],
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
        help="pre-train height and width, such as 160 or 160x128, or TARGET:PRETRAIN, such as "
        "224:160; for a model whose own size is symbolic, a single size is the target's (default: "
        "the ratio of the first convolution's kernels decides)",
    )
    parser.add_argument(
        "--kernels",
        metavar="TABLE",
        help="kernel sizes TARGET:PRETRAIN, such as 3:2,5:3, or a file with such a table; other "
        "sizes follow the paper's table",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN",
        action="append",
        default=[],
        help="keep the kernel sizes of layers (or weights) of this name; * and ? match as in file "
        "names; may be repeated",
    )
    parser.add_argument(
        "--init",
        choices=("resize", "fresh"),
        help="resize the target's weights or draw fresh ones (default: resize where it is trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="for fresh weights (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, write nothing")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of tables"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal, outputs: Outputs) -> None:
    """Shrink a file."""
    from graphscale.cli.tables import show_plan
    from graphscale.core.kernel_sizes import parse_kernel_table
    from graphscale.core.model_files import load_model, save_model
    from graphscale.rescaling.check_runs import check_runs
    from graphscale.rescaling.plan import plan_model
    from graphscale.rescaling.shrink import shrink_model

    if options.seed < 0:
        raise GraphScaleError(f"--seed {options.seed}: give 0 or more")
    output = options.output if options.output is not None else beside(options.model, "pretrain")
    if not options.dry_run:
        outputs.expect(output)
        plan_path = output.with_suffix(".plan.json")
        outputs.expect(plan_path, output.with_name(output.name + ".data"))
    table = None
    if options.kernels is not None:
        table = parse_kernel_table(_table_text(options.kernels))
    with terminal.working("shrinking") as working:
        model = load_model(options.model)
        terminal.step(f"{options.model} is read")
        outputs.keep_apart(*model.meta["files"], options.kernels)
        dilated = _has_dilation(model)
        size, keep = options.input_size, options.keep
        with about(options.model):
            if options.dry_run:
                plan = plan_model(model, input_size=size, kernels=table, keep=keep, copy=False)
            else:
                init = options.init or "auto"
                model, plan = shrink_model(
                    model,
                    input_size=size,
                    kernels=table,
                    keep=keep,
                    init=init,
                    seed=options.seed,
                    copy=False,
                )
        terminal.step(f"{len(plan.layers)} layers are planned and {len(plan.weights)} weights made")
        if not options.dry_run:
            _check_shrunk(options, plan)
            with about(options.model):  # weights are computed now
                check_runs(model, options.model, size)
            with about(options.model, output, plan_path), replacing(plan_path) as (file,):
                file.write(plan.to_json().encode())
                file.flush()  # a disk too full for the plan gets no model either
                save_model(model, output, working)
            terminal.step(f"{output} and {plan_path} are written")
    if table and not dilated:  # a dilated kernel is looked up by the size that it spans
        _note_unused_kernels(table, plan, terminal)
    with terminal.showing(tables=not options.json) as console:
        if options.json:
            print(json.dumps(plan.report()))
            return
        show_plan(plan, console, None if options.dry_run else f"{output} and {plan_path}")


def _table_text(given: str) -> str:
    """The table itself, or the text of the file that `given` names."""
    try:
        path = Path(given)
        if ":" in given and not path.exists():
            return given
        check_regular(path)
        return path.read_text()
    except (OSError, ValueError) as error:
        if ":" in given and isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return given
        raise GraphScaleError(
            f"{given}: cannot be read as a kernel table ({error}); give 3:2,5:3 or a text file"
        ) from None


def _check_shrunk(options: argparse.Namespace, plan: Plan) -> None:
    """Refuse a plan that makes nothing smaller, unless options asked for it."""
    asked = (options.keep, options.kernels, options.input_size)
    if plan.weights or any(asked) or any(each.target != each.pretrain for each in plan.inputs):
        return
    reasons = sorted({each.left_unscaled for each in plan.layers if each.left_unscaled})
    raise GraphScaleError(
        f"{options.model}: nothing in it becomes smaller ({'; '.join(reasons)}), so nothing is "
        "written; give --keep '*' to write it all the same"
    )


def _has_dilation(model: ir.Model) -> bool:
    dilations = (node.attributes.get("dilations") for node in model.graph.all_nodes())
    return any(each is not None and max(each.as_ints(), default=1) > 1 for each in dilations)


def _note_unused_kernels(table: Mapping[int, int], plan: Plan, terminal: Terminal) -> None:
    """Say which sizes of --kernels have no effect, because no layer has such a kernel."""
    sizes = {size for layer in plan.layers for size in layer.target_kernel}
    unused = [f"{target}:{pretrain}" for target, pretrain in table.items() if target not in sizes]
    if unused:
        terminal.note(
            f"{','.join(unused)} of --kernels changes nothing: the model's kernels have "
            f"{', '.join(map(str, sorted(sizes)))} taps along an axis"
        )
