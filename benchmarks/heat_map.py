"""Draws heat maps of ratios: green where graphscale is faster, red where it is slower.

Ratios by row and column go in; a PNG file comes out.
"""

from __future__ import annotations

from pathlib import Path


def draw(
    ratios: dict[tuple[int, int], float], rows: str, columns: str, title: str, path: Path
) -> None:
    """Draw ratios[row, column] into the file `path`; `rows` and `columns` label the axes."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    ys, xs = (sorted({place[axis] for place in ratios}) for axis in (0, 1))
    values = np.full((len(ys), len(xs)), np.nan)
    for (y, x), ratio in ratios.items():
        values[ys.index(y), xs.index(x)] = ratio
    figure, axes = pyplot.subplots(figsize=(1.1 * len(xs) + 2, 0.6 * len(ys) + 1.5))
    axes.imshow(np.log2(values), cmap="RdYlGn", vmin=-4, vmax=4, aspect="auto")
    axes.set(xlabel=columns, ylabel=rows, xticks=range(len(xs)), yticks=range(len(ys)))
    axes.set(xticklabels=xs, yticklabels=ys)
    for y, x in np.ndindex(values.shape):
        if values[y, x] > 0:
            axes.text(x, y, f"{values[y, x]:.1f}", ha="center", va="center")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
