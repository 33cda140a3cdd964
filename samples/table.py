"""The demo's table: accuracy, seconds and multiplications of both trainings."""

from __future__ import annotations

from statistics import median

from rich.console import Console
from rich.table import Table
from training import Record

from graphscale import Plan


def show(plan: Plan, scratch: Record, rescaled: Record, growth: int) -> None:
    """Print the table; `growth` is the index of the entry of `rescaled` straight after growth."""
    work = plan.multiplications()
    target, pretrain = (f"{work[each] / 1e6:.1f} M" for each in ("target", "pretrain"))
    small = median(rescaled.epoch_seconds[:growth])
    large = median(rescaled.epoch_seconds[growth:])
    rows = [
        ("target from scratch", scratch, -1, f"{median(scratch.epoch_seconds):.1f}", target),
        ("pre-train network", rescaled, growth - 1, f"{small:.1f}", pretrain),
        ("  grown", rescaled, growth, "", target),
        (
            "shrink → train → grow → train",
            rescaled,
            -1,
            f"{small:.1f}, then {large:.1f}",
            f"{pretrain}, then {target}",
        ),
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("accuracy", "seconds", "seconds per epoch", "multiplications per image"):
        table.add_column(name, justify="right")
    for name, record, entry, epoch, multiplications in rows:
        table.add_row(
            name,
            f"{record.accuracy[entry]:.1%}",
            f"{record.seconds[entry]:.0f}",
            epoch,
            multiplications,
        )
    console = Console(highlight=False, width=110)
    console.print()
    console.print(table)
    share = rescaled.seconds[-1] / scratch.seconds[-1]
    points = 100 * (rescaled.accuracy[-1] - scratch.accuracy[-1])
    time = (
        f"{1 - share:.0%} of the training time saved" if share <= 1 else f"{share:.1f} times slower"
    )
    console.print(f"\n{time}, accuracy {points:+.1f} points")
