"""Tables and a figure of the trainings that run.py has recorded.

One table per data set and network: accuracy and training time of each variant, as means over the
seeds, beside the target's. Time is the number of epochs in each stage times what a step of that
stage costs, and what shrinking and growing cost (costs.json); the processor time of the trainings
themselves stands beside it. The figure shows accuracy over time, one point per variant.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table
from variants import VARIANTS, stages_name

RESULTS = Path(__file__).parent.parent / "results" / "training"

# The variants in the figure, with the words of its legend; the tables have all.
DRAWN = {
    "late": "the default recipe, late",
    "target": "the target alone",
    "target-compressed": "the target alone, half its epochs",
    "progressive-0.83": "progressive resizing of images",
    "progressive": "the same with more epochs",
    "paper": "the paper's early growth",
}
DATA = {"glyphs": "letters of unseen fonts", "clothes": "photographs of clothes"}
NETWORKS = {"overfeat": "OverFeat-like", "resnet": "ResNet-like", "mobilenet": "MobileNet-like"}

Runs = dict[str, dict[int, dict]]  # variant -> seed -> record


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="one table per data set, as text")
    options = parser.parse_args()
    folder = options.results
    if not (folder / "costs.json").exists():
        raise SystemExit(f"{folder}: has no costs.json; run benchmarks/training/costs.py first")
    costs = json.loads((folder / "costs.json").read_text())
    groups: dict[tuple[str, str], Runs] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(set(folder.glob("*.json")) - {folder / "costs.json"}):
        record = json.loads(file.read_text())
        record["cost"] = _cost(record, costs)
        groups[record["data"], record["network"]][record["variant"]][record["seed"]] = record
    if not groups:
        raise SystemExit(f"{folder}: holds no result; run benchmarks/training/run.py first")
    if options.markdown:
        for data in dict.fromkeys(data for data, _ in groups):
            _write(data, {network: runs for (of, network), runs in groups.items() if of == data})
    else:
        for (data, network), runs in groups.items():
            _show(f"{data}, {network}", runs)
    _draw(groups, folder / "training.png")


def _cost(record: dict, costs: dict) -> float:
    """Seconds of all training steps, by what a step costs in each stage, and of growth."""
    per_image = costs["seconds_per_image"][record["network"]]
    per_epoch = [per_image[record["stages"][epoch["stage"]]] for epoch in record["epochs"]]
    growth = costs["growth_seconds"][record["network"]][stages_name(record["stages"])]
    return sum(per_epoch) * record["train_images"] + growth


def _show(title: str, runs: Runs) -> None:
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    table.add_column("variant")
    names = ("seeds", "accuracy", "± s.e.", "points", "± s.e.", "time", "processor time")
    for name in names:
        table.add_column(name, justify="right")
    target = runs["target"]
    for variant, records in sorted(runs.items(), key=lambda item: -_mean(item[1], "accuracy")):
        seeds = sorted(records.keys() & target.keys())
        gains = [100 * (records[s]["accuracy"] - target[s]["accuracy"]) for s in seeds]
        table.add_row(
            variant,
            ", ".join(map(str, sorted(records))),
            f"{_mean(records, 'accuracy'):.2%}",
            _error([100 * each["accuracy"] for each in records.values()]),
            f"{mean(gains):+.2f}" if gains else "",
            _error(gains),
            f"{_share(records, target, 'cost'):.0%}",
            f"{_share(records, target, 'processor_seconds'):.0%}",
        )
    Console(highlight=False, width=110).print(table)


def _write(data: str, networks: dict[str, Runs]) -> None:
    """Print a table in Markdown: a row per variant, each seed's difference to the target's."""
    print(f"| {data} | {' | '.join(networks)} |")
    print("|---" * (len(networks) + 1) + "|")
    variants = dict.fromkeys(name for runs in networks.values() for name in runs)
    for variant in sorted(variants, key=list(VARIANTS).index):
        cells = []
        for runs in networks.values():
            target, records = runs["target"], runs.get(variant, {})
            seeds = sorted(records.keys() & target.keys())
            if variant == "target":
                cells.append(f"{_mean(target, 'accuracy'):.2%}")
            elif seeds:
                gains = [100 * (records[s]["accuracy"] - target[s]["accuracy"]) for s in seeds]
                points = ", ".join(f"{each:+.2f}" for each in gains)
                cells.append(f"{points} in {_share(records, target, 'cost'):.0%}")
            else:
                cells.append("")
        print(f"| `{variant}` | {' | '.join(cells)} |")
    print()


def _mean(records: dict[int, dict], key: str) -> float:
    return mean(record[key] for record in records.values())


def _error(values: list[float]) -> str:
    """The standard error of the mean."""
    return f"{stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""


def _share(records: dict[int, dict], target: dict[int, dict], key: str) -> float:
    return _mean(records, key) / _mean(target, key)


def _draw(groups: dict[tuple[str, str], Runs], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data_sets = [data for data in DATA if any(data == each for each, _ in groups)]
    networks = [name for name in NETWORKS if any(name == each for _, each in groups)]
    figure, axes = pyplot.subplots(
        len(data_sets),
        len(networks),
        figsize=(4.2 * len(networks), 3.4 * len(data_sets)),
        sharex=True,
        squeeze=False,
    )
    marks = {}
    for (data, network), runs in groups.items():
        side = axes[data_sets.index(data), networks.index(network)]
        for index, (variant, words) in enumerate(DRAWN.items()):
            records = runs.get(variant)
            if records is None:
                continue
            share = 100 * _share(records, runs["target"], "cost")
            accuracies = [100 * each["accuracy"] for each in records.values()]
            color = f"C{index}"
            side.plot([share] * len(accuracies), accuracies, ".", color=color, alpha=0.4)
            (marks[words],) = side.plot(
                share, mean(accuracies), "*" if variant == "late" else "o", color=color, ms=9
            )
        side.axhline(100 * _mean(runs["target"], "accuracy"), color="grey", lw=0.8, ls="--")
        side.set_title(f"{DATA[data]}, {NETWORKS[network]}", fontsize=10)
        side.grid(alpha=0.3)
    for side in axes[:, 0]:
        side.set_ylabel("test accuracy, %")
    for side in axes[-1]:
        side.set_xlabel("training time, % of the target's")
    rows = 0.12 if len(data_sets) == 1 else 0.07  # of the height, for the legend
    shown = [words for words in DRAWN.values() if words in marks]
    figure.legend(
        [marks[words] for words in shown],
        shown,
        ncols=len(networks),
        loc="upper center",
        frameon=False,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - rows))
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
