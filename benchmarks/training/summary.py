"""Tables and a figure of the trainings that run.py has recorded.

One table per data set and network: accuracy and training time of each variant, as means over the
seeds, beside the target's. The figure shows accuracy over time, one point per variant.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent.parent / "results" / "training"

Runs = dict[str, list[dict]]  # variant -> one record per seed


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    groups: dict[tuple[str, str], Runs] = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        groups[record["data"], record["network"]][record["variant"]].append(record)
    if not groups:
        raise SystemExit(f"{folder}: holds no result; run benchmarks/training/run.py first")
    for (data, network), runs in groups.items():
        _show(f"{data}, {network}", runs)
    _draw(groups, folder / "training.png")


def _show(title: str, runs: Runs) -> None:
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    table.add_column("variant")
    for name in ("seeds", "accuracy", "standard error", "points", "time", "processor time"):
        table.add_column(name, justify="right")
    baseline = runs.get("target")
    for variant, records in sorted(runs.items(), key=lambda item: -_mean(item[1], "accuracy")):
        accuracies = [record["accuracy"] for record in records]
        error = stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None
        table.add_row(
            variant,
            str(len(records)),
            f"{mean(accuracies):.2%}",
            "" if error is None else f"{100 * error:.2f}",
            "" if baseline is None else f"{100 * _gain(records, baseline):+.2f}",
            "" if baseline is None else f"{_share(records, baseline, 'seconds'):.0%}",
            "" if baseline is None else f"{_share(records, baseline, 'processor_seconds'):.0%}",
        )
    Console(highlight=False, width=110).print(table)


def _mean(records: list[dict], key: str) -> float:
    return mean(record[key] for record in records)


def _gain(records: list[dict], baseline: list[dict]) -> float:
    return _mean(records, "accuracy") - _mean(baseline, "accuracy")


def _share(records: list[dict], baseline: list[dict], key: str) -> float:
    return _mean(records, key) / _mean(baseline, key)


def _draw(groups: dict[tuple[str, str], Runs], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(groups), figsize=(5.5 * len(groups), 4.5), squeeze=False)
    for side, ((data, network), runs) in zip(axes[0], groups.items()):
        for variant, records in runs.items():
            minutes = _mean(records, "processor_seconds") / 60
            accuracy = 100 * _mean(records, "accuracy")
            side.plot(minutes, accuracy, "o")
            side.annotate(variant, (minutes, accuracy), fontsize=7, xytext=(3, 3),
                          textcoords="offset points")  # fmt: skip
        side.set_title(f"{data}, {network}")
        side.set_xlabel("minutes of processor time")
        side.set_ylabel("test accuracy, %")
        side.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
