"""The learning rate's schedule against hand-computed values and torch's own schedulers."""

import pytest
import torch

from graphscale import GraphScaleError
from graphscale.training.rate_schedule import RateSchedule


def test_steps() -> None:
    schedule = RateSchedule("steps", drops=((0.5, 0.1), (0.75, 0.1)))
    assert [schedule.at(share) for share in (0, 0.49)] == [1, 1]
    assert schedule.at(0.5) == pytest.approx(0.1)
    assert schedule.at(0.99) == pytest.approx(0.01)
    assert schedule.milestones(90) == (45, 68)


def test_linear() -> None:
    assert [RateSchedule("linear").at(share) for share in (0, 0.25, 1)] == [1, 0.75, 0]


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for epoch in range(20):
        assert RateSchedule("cosine").at(epoch / 20) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        optimizer.step()
        torchs.step()


def test_warm_up_rises_in_a_line() -> None:
    schedule = RateSchedule("linear", warm_up=0.1)
    assert schedule.at(0.05) == pytest.approx(0.5)
    assert 0 < schedule.at(0) < 0.01
    assert schedule.at(0.1) == pytest.approx(0.9)


def test_unknown_kind() -> None:
    with pytest.raises(GraphScaleError, match="cosine"):
        RateSchedule("stairs")
