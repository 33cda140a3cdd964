"""Plot one or several trainings: accuracy over epochs and over hours.

In: the epoch records of each training. Out: a PNG file in the manner of Figures 4 to 10 of arXiv
1610.03623, with a ring on the line where the network has grown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from graphscale.core.files import replacing
from graphscale.training.run_folder import EpochRecord


def draw_curves(runs: Mapping[str, Sequence[EpochRecord]], path: Path) -> None:
    """Write a PNG with one line per training.

    Args:
        runs: Label of the training -> its epochs.
        path: The file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    longest = max(records[-1].seconds for records in runs.values())
    unit, name = (3600, "hours") if longest > 5400 else (60, "minutes")
    figure, sides = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for label, records in runs.items():
        accuracy = [100 * each.accuracy for each in records]
        for side, places in (
            (sides[0], [each.epoch for each in records]),
            (sides[1], [each.seconds / unit for each in records]),
        ):
            (line,) = side.plot(places, accuracy, marker=".", label=label)
            grown = [
                index
                for index in range(1, len(records))
                if records[index].stage != records[index - 1].stage
            ]
            side.plot(
                [places[index] for index in grown],
                [accuracy[index] for index in grown],
                "o",
                color=line.get_color(),
                markersize=9,
                fillstyle="none",
            )
    sides[0].set_xlabel("epochs")
    sides[1].set_xlabel(f"{name} of training")
    sides[0].set_ylabel("validation accuracy, %")
    sides[0].set_ylim(top=min(sides[0].get_ylim()[1], 101))
    sides[0].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    sides[0].legend(frameon=False)
    for side in sides:
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    figure.text(0.5, 0.005, "a ring marks the first epoch after growth", ha="center", fontsize=8)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    with replacing(path) as (file,):
        figure.savefig(file, format="png", dpi=130)
    pyplot.close(figure)
