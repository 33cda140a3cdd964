"""The demo's plot: accuracy against training time, and kernels before and after growth.

Records of both trainings and the kernels of one convolution go in; a PNG file comes out.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from training import Record

matplotlib.use("Agg")
from matplotlib import pyplot

MAX_KERNELS = 8  # in a row of the plot


def draw(
    path: Path,
    scratch: Record,
    rescaled: Record,
    growth: int,
    kernels: dict[str, torch.Tensor],
) -> None:
    """Draw both trainings and the kernels.

    Args:
        path: The PNG file.
        scratch: The record of the target trained from scratch.
        rescaled: The record of shrink, train, grow, train on.
        growth: The index of the entry of `rescaled` straight after growth.
        kernels: The weight [filters, channels, k, k] of a convolution by label, a row for each.
    """
    figure = pyplot.figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    axes = left.subplots()
    blue, orange = "#4477aa", "#ee7733"
    axes.plot(scratch.seconds, scratch.accuracy, "o-", color=blue, label="target from scratch")
    axes.plot(
        rescaled.seconds,
        rescaled.accuracy,
        "o-",
        color=orange,
        label="shrink → train → grow → train",
    )
    axes.annotate(
        "grown",
        (rescaled.seconds[growth], rescaled.accuracy[growth]),
        xytext=(12, -4),
        textcoords="offset points",
        color=orange,
    )
    axes.set(xlabel="seconds of training", ylabel="accuracy on test images", xlim=(0, None))
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)

    grid = right.subplots(len(kernels), MAX_KERNELS)
    right.suptitle("first convolution")
    for row, (label, weight) in zip(grid, kernels.items()):
        row[0].set_ylabel(label)
        for cell, kernel in zip(row, weight[:, 0].detach()):
            largest = kernel.abs().max()
            cell.imshow(kernel, cmap="RdBu", vmin=-largest, vmax=largest)
            cell.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
