"""The plot shows the records: accuracy over epochs and time, a ring where a network has grown."""

from dataclasses import replace
from pathlib import Path

import pytest

from graphscale.training.curves import draw_curves
from tests.training.test_run_folder import FIRST, SECOND

LAST = replace(SECOND, epoch=3, accuracy=1.0, seconds=60.0)


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that draws and returns the two axes; the figure is closed after the test."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    drawn = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", drawn.append)

    def draw(runs: dict) -> list:
        draw_curves(runs, tmp_path / "curves.png")
        return drawn[0].axes

    yield draw
    for each in drawn:
        close(each)


def lines(side) -> list[tuple]:
    return [(each.get_xdata().tolist(), each.get_ydata().tolist()) for each in side.lines]


def test_lines_and_rings(figure, tmp_path: Path) -> None:
    epochs, time = figure({"late": [FIRST, SECOND, LAST]})
    assert lines(epochs) == [([1, 2, 3], [62.5, 87.5, 100.0]), ([2], [87.5])]
    assert lines(time) == [([0.2, 0.5, 1.0], [62.5, 87.5, 100.0]), ([0.5], [87.5])]
    assert time.get_xlabel() == "minutes of training"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_baseline_has_no_ring_and_hours_are_hours(figure) -> None:
    target = [replace(FIRST, seconds=3600.0), replace(FIRST, epoch=2, seconds=7200.0)]
    epochs, time = figure({"late": [FIRST, SECOND], "target": target})
    assert time.get_xlabel() == "hours of training"
    assert lines(time)[2] == ([1.0, 2.0], [62.5, 62.5])
    assert lines(epochs)[3] == ([], [])
    assert [each.get_text() for each in epochs.get_legend().get_texts()] == ["late", "target"]
