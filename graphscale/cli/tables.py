"""The tables that commands print for people.

In: results of the library, such as a plan. Out: rich tables on a console; nothing is computed here.
If the console's encoding is not UTF-8, arrows and crosses are printed in ASCII.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphscale.acceleration.accelerate_model import RUNTIME, Acceleration
from graphscale.core.plan import Plan
from graphscale.passes.grow.grow_graph import Growth
from graphscale.rescaling.fidelity import Fidelity

if TYPE_CHECKING:  # train_folder imports torch, which the other commands do not need
    from graphscale.training.train_folder import TrainingResult

_INIT = {
    "resize": "resized from the target's",
    "fresh": "resized layers are drawn fresh (the target looks untrained, or --init fresh)",
}
_IN_ASCII = str.maketrans({"→": "->", "←": "<-", "×": "x", "…": "...", "–": "-"})


def show_plan(plan: Plan, console: Console, written: str | None) -> None:
    """Print a plan: each layer's kernel, size and multiplications, before and after, and totals.

    Args:
        plan: The plan.
        console: Where to print.
        written: Names of the files that were written, or None.
    """
    names = ("layer", "kernel", "size", "multiplications", "ratio")
    table = _table(names, right=names[1:])
    for layer in plan.layers:
        target, pretrain = layer.target_multiplications, layer.pretrain_multiplications
        _add_row(
            console,
            table,
            layer.name,
            _change(layer.target_kernel, layer.pretrain_kernel) or layer.op,
            _change(layer.target_size, layer.pretrain_size),
            f"{_count(target)} → {_count(pretrain)}",
            f"{target / pretrain:.2f}" if pretrain else "",
        )
    console.print(table)
    unscaled = [(each.name, each.left_unscaled) for each in plan.layers]
    _show_reasons("left unscaled because", unscaled, console)
    if plan.folded:
        _say(
            console,
            "folded",
            f"  {len(plan.folded)} weights that nodes computed are initializers now",
        )
    if plan.resolved_ifs:
        _say(
            console,
            "decided",
            f" {len(plan.resolved_ifs)} If nodes, whose branch the shapes decide",
        )
    if plan.init:
        _say(console, "weights", f" {_INIT[plan.init]}")
    for each in plan.inputs:
        change = f"{_shape(each.target)} → {_shape(each.pretrain)}"
        _say(console, "input", f"   {each.name}: {change}")
    convolutions = sorted({layer.op for layer in plan.layers if layer.target_kernel})
    for name, total in (
        ("convolutions", plan.multiplications(convolutions)),
        ("all layers", plan.multiplications()),
    ):
        change = f"{_count(total['target'])} → {_count(total['pretrain'])}"
        text = f": {change} multiplications per image, predicted ratio "
        _say(console, name, text, f"{total['ratio']:.2f}")
    if written is not None:
        _say(console, "written", f" {written}")


def show_growth(
    growth: Growth,
    plan: Plan,
    fidelity: Sequence[Fidelity] | None,
    console: Console,
    written: str,
) -> None:
    """Print what was resized and copied, how far outputs differ (--check), and the file's name."""
    resized = {weight.name: weight for weight in plan.weights}
    table = _table(("weight", "kind", "pre-train shape", "target shape"))
    for name in growth.resized:
        weight = resized[name]
        shapes = _shape(weight.pretrain_shape), _shape(weight.target_shape)
        _add_row(console, table, name, weight.kind, *shapes)
    console.print(table)
    _say(console, "resized", f" {len(growth.resized)}, copied {len(growth.copied)}")
    if growth.untied:
        text = "weights that layers shared in the target file and learned apart"
        _say(console, "untied", f" {len(growth.untied)} {text}")
    for name, other in growth.renamed.items():
        _say(console, "", f"matched by structure: {name} ← {other}")
    for each in fidelity or ():
        _say(console, "check", f"   {each.output}: {_likeness(each)} ({each.images} images)")
    _say(console, "written", f" {written}")


def _likeness(each: Fidelity) -> str:
    """How like each other the outputs of the two networks are."""
    if each.difference is None:
        return "holds infinity or NaN and cannot be compared"
    correlation = "undefined (constant outputs)"
    if each.correlation is not None:
        correlation = f"{each.correlation:.3f}"
    text = f"relative difference {each.difference:.3f}, correlation {correlation}"
    return text + ("" if each.agreement is None else f", same top class {each.agreement:.0%}")


def show_acceleration(result: Acceleration, console: Console, written: str | None) -> None:
    """Print each layer's times and chosen path, the whole model's times, and the file's name."""
    names = ("layer", "kernel", "input", "before", "after", "path")
    table = _table(names, right=names[1:5])
    for layer in result.layers:
        if not layer.seconds:
            continue
        _add_row(
            console,
            table,
            layer.name,
            _sizes(layer.kernel),
            _sizes(layer.x),
            _milliseconds(layer.seconds[RUNTIME]),
            _milliseconds(layer.seconds[layer.path]),
            layer.path if layer.reason is None else f"{layer.path}: {layer.reason}",
        )
    if table.rows:
        console.print(table)
    left = [(each.name, each.reason) for each in result.layers if not each.seconds]
    _show_reasons(f"left to {RUNTIME} because", left, console)
    if result.before is None or result.after is None:
        fft = any(layer.path != RUNTIME for layer in result.layers)
        why = "every convolution has its fastest way" if fft else "no convolution is faster by FFT"
        _say(console, "", f"{why} here; the model is unchanged")
    else:
        change = f"{_milliseconds(result.before)} → {_milliseconds(result.after)}"
        _say(console, "whole model", f": {change}, outputs differ by {result.difference:.1e}")
    if written is not None:
        _say(console, "written", f" {written}")


def _in_encoding(console: Console, text: str) -> str:
    return text.translate(_IN_ASCII) if console.options.ascii_only else text


def _say(console: Console, title: str, text: str, highlight: str = "") -> None:
    """Print a line: its title in bold, its text, and `highlight` in green."""
    line = Text.assemble(
        (title, "bold"), _in_encoding(console, text), (highlight, "bold green"), overflow="fold"
    )
    console.print(line, soft_wrap=True)


def _table(names: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name in right else "left")
    return table


def _add_row(console: Console, table: Table, *cells: str) -> None:
    table.add_row(*(Text(_in_encoding(console, cell)) for cell in cells))


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def show_trainings(results: Sequence[TrainingResult], output: Path, console: Console) -> None:
    """Print each training's accuracy and duration and, with a baseline, how much was saved."""
    names = ("recipe", "accuracy", "best", "training", "epochs by image size")
    table = _table(names, right=names[1:4])
    for result in results:
        epochs: dict[int, int] = {}
        for record in result.records:
            epochs[record.image_size] = epochs.get(record.image_size, 0) + 1
        _add_row(
            console,
            table,
            result.recipe,
            f"{result.accuracy:.2%}",
            f"{max(record.accuracy for record in result.records):.2%}",
            _duration(result.seconds),
            ", ".join(f"{count} at {size}" for size, count in epochs.items()),
        )
    console.print(table)
    if len(results) == 2:
        ours, baseline = results
        share = ours.seconds / baseline.seconds
        points = 100 * (ours.accuracy - baseline.accuracy)
        if share <= 1:
            time, label = f"    {1 - share:.0%} of the training time", "saved"
        else:
            time, label = f"    took {share:.1f} times the baseline's time", "slower"
        _say(console, label, f"{time}, accuracy {points:+.2f} points")
    _say(console, "written", f"  {output / 'model.onnx'}, curves.png, result.json, log.csv")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _show_reasons(title: str, reasons: Iterable[tuple[str, str | None]], console: Console) -> None:
    """Print the layers that have a reason, as a table with one row per reason."""
    layers: dict[str, list[str]] = {}
    for name, reason in reasons:
        if reason is not None:
            layers.setdefault(reason, []).append(name)
    if not layers:
        return
    table = _table((title, "layers"))
    for reason, names in layers.items():
        _add_row(console, table, reason, ", ".join(names))
    console.print()
    console.print(table)
    console.print()


def _change(target: list[int], pretrain: list[int]) -> str:
    if not target:
        return ""
    one, other = _sizes(target), _sizes(pretrain)
    return one if one == other else f"{one} → {other}"


def _sizes(sizes: list[int]) -> str:
    return "×".join(map(str, sizes))


def _shape(shape: Sequence[int | str]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _count(number: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return (
                f"{number / unit:.3g} {name}"
                if number < 1000 * unit
                else f"{number / unit:.0f} {name}"
            )
    return f"{number:.0f}"
