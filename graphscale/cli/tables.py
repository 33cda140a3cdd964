"""What the commands show: tables for people, nothing of it computed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphscale.acceleration.accelerate import RUNTIME, Acceleration
from graphscale.core.plan import Plan
from graphscale.passes.grow.grow_graph import Growth
from graphscale.rescaling.fidelity import Fidelity

_INIT = {
    "resize": "resized from the target's",
    "fresh": "resized layers are drawn fresh (the target looks untrained, or --init fresh)",
}


def show_plan(plan: Plan, console: Console) -> None:
    """Layer by layer, kernels, extents and multiplications before and after; totals; reasons."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold")
    table.add_column("kernel", justify="right")
    table.add_column("extent", justify="right")
    table.add_column("multiplications", justify="right")
    table.add_column("ratio", justify="right")
    for layer in plan.layers:
        target, pretrain = layer.target_multiplications, layer.pretrain_multiplications
        table.add_row(
            Text(layer.name),
            _change(layer.target_kernel, layer.pretrain_kernel) or layer.op,
            _change(layer.target_extent, layer.pretrain_extent),
            f"{_count(target)} → {_count(pretrain)}",
            f"{target / pretrain:.2f}" if pretrain else "",
        )
    console.print(table)
    unscaled = [(each.name, each.left_unscaled) for each in plan.layers]
    _show_reasons("left unscaled because", unscaled, console)
    if plan.folded:
        console.print(
            f"[bold]folded[/]   {len(plan.folded)} weights that nodes computed are initializers now"
        )
    if plan.decided:
        console.print(
            f"[bold]decided[/]  {len(plan.decided)} If nodes, whose branch the shapes decide"
        )
    if plan.init:
        console.print(f"[bold]weights[/]  {_INIT[plan.init]}")
    for each in plan.inputs:
        console.print(
            f"[bold]input[/]    {each.name}: {_shape(each.target)} → {_shape(each.pretrain)}"
        )
    convolutions = sorted({layer.op for layer in plan.layers if layer.target_kernel})
    for name, total in (
        ("convolutions", plan.multiplications(convolutions)),
        ("all layers", plan.multiplications()),
    ):
        console.print(
            f"[bold]{name}[/]: {_count(total['target'])} → {_count(total['pretrain'])} "
            f"multiplications per picture, predicted ratio [bold green]{total['ratio']:.2f}[/]"
        )


def show_growth(
    growth: Growth, plan: Plan, fidelity: Sequence[Fidelity] | None, console: Console
) -> None:
    """What was resized and copied, and how far the outputs differ."""
    resized = {weight.name: weight for weight in plan.weights}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("weight", "kind", "pre-train shape", "target shape"):
        table.add_column(name, overflow="fold")
    for name in growth.resized:
        weight = resized[name]
        table.add_row(
            Text(name), weight.kind, _shape(weight.pretrain_shape), _shape(weight.target_shape)
        )
    console.print(table)
    console.print(f"[bold]resized[/] {len(growth.resized)}, [bold]copied[/] {len(growth.copied)}")
    if growth.untied:
        console.print(
            f"[bold]separated[/] {len(growth.untied)} weights that layers shared in the target "
            "file and learned apart"
        )
    for name, other in growth.renamed.items():
        console.print(Text(f"matched by structure: {name} ← {other}"))
    for each in fidelity or ():
        agreement = "" if each.agreement is None else f", same top class {each.agreement:.0%}"
        console.print(
            f"[bold]check[/]   {each.output}: relative difference {each.difference:.3f}, "
            f"correlation {each.correlation:.3f}{agreement} ({each.pictures} pictures)"
        )


def show_acceleration(result: Acceleration, console: Console) -> None:
    """Layer by layer the chosen path and the measured times; the whole model's."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold")
    for name in ("kernel", "input", "before", "after"):
        table.add_column(name, justify="right")
    table.add_column("path")
    for layer in result.layers:
        if not layer.seconds:
            continue
        table.add_row(
            Text(layer.name),
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
        console.print(f"{why} here; the model is unchanged")
        return
    console.print(
        f"[bold]whole model[/]: {_milliseconds(result.before)} → "
        f"{_milliseconds(result.after)}, outputs differ by {result.difference:.1e}"
    )


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def _show_reasons(title: str, reasons: Iterable[tuple[str, str | None]], console: Console) -> None:
    """Layers with their reasons, if any, as a table by reason."""
    layers: dict[str, list[str]] = {}
    for name, reason in reasons:
        if reason is not None:
            layers.setdefault(reason, []).append(name)
    if not layers:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    table.add_column("layers", overflow="fold")
    for reason, names in layers.items():
        table.add_row(reason, Text(", ".join(names)))
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
