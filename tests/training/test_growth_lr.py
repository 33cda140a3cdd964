"""Learning rates before and after growth, against rates written out by hand."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, ReduceLROnPlateau

import graphscale
from graphscale.training import GrowthLR, GrowthSchedule

from .small_networks import shrunk


def rates(make_scheduler=None, total: int = 6, grow_at: int = 3, **options) -> list[float]:
    module = shrunk()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = GrowthSchedule(module, total=total, grow_at=grow_at, optimizers=optimizer)
    scheduler = None if make_scheduler is None else make_scheduler(optimizer)
    rate = GrowthLR(schedule, optimizer, scheduler, **options)
    assert isinstance(rate, torch.optim.lr_scheduler.LRScheduler)
    found = []
    for _ in schedule:
        found.append(optimizer.param_groups[0]["lr"])
        assert rate.get_last_lr() == [found[-1]]
        optimizer.step()
        schedule.step()
        rate.step()
    return found


def steps(optimizer: torch.optim.Optimizer) -> MultiStepLR:
    return MultiStepLR(optimizer, [2, 4], 0.1)


def cosine(optimizer: torch.optim.Optimizer) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, 6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1] * 6),
        ({"make_scheduler": steps}, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
        ({"after": "restart"}, [0.1, 0.1, 0.1, 0.1, 0.2 / 3, 0.1 / 3]),
        ({"after": "restart", "decay": "steps"}, [0.1, 0.1, 0.1, 0.1, 0.02, 0.002]),
        ({"after": "restart", "decay": "cosine"}, [0.1, 0.1, 0.1, 0.1, 0.075, 0.025]),
        (
            {"after": "restart", "decay": lambda p: 1 - p * p, "make_scheduler": steps},
            [0.1, 0.1, 0.01, 0.1, 0.1 * 8 / 9, 0.1 * 5 / 9],
        ),
        (
            {"after": "restart", "height": 0.5, "decay": "constant", "warmup": 1},
            [0.1, 0.1, 0.1, 0.025, 0.05, 0.05],
        ),
        (
            {"make_scheduler": steps, "warmup": 2},
            [0.1, 0.1, 0.01, 0.01 / 3, 0.001 * 2 / 3, 0.001],
        ),
    ],
)
def test_rates(options: dict, expected: list[float]) -> None:
    assert rates(**options) == pytest.approx(expected)


def test_a_warmup_leaves_the_scheduler_alone() -> None:
    """Schedulers that compute the next rate from the last one must not see the warm-up."""
    plain, warmed = rates(cosine), rates(cosine, warmup=1)
    assert warmed[:3] == plain[:3]
    assert warmed[3] == pytest.approx(plain[3] / 2)
    assert warmed[4:] == plain[4:]


def test_the_rate_stands_still_in_extra_units() -> None:
    module = shrunk()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = GrowthSchedule(module, total=5, grow_at=2, optimizers=optimizer, extra_until_drop=9)
    rate = GrowthLR(schedule, optimizer, MultiStepLR(optimizer, [3], 0.1))
    found = []
    for position in schedule:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step([0, 0, 1, 2, 1, 1, 1, 1, 1, 1][position])
        rate.step()
    assert found == pytest.approx([0.1] * 6 + [0.01] * 2)
    assert schedule.extra == 3


def test_arguments_reach_the_scheduler() -> None:
    module = shrunk()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = GrowthSchedule(module, total=5, grow_at=4)
    rate = GrowthLR(schedule, optimizer, ReduceLROnPlateau(optimizer, patience=0))
    for loss in (1.0, 1.0, 1.0):
        schedule.step()
        rate.step(loss)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_rate_held_in_a_tensor() -> None:
    module = shrunk()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    schedule = GrowthSchedule(module, total=4, grow_at=2, optimizers=optimizer)
    rates = GrowthLR(schedule, optimizer, after="restart", height=0.5)
    for _ in range(2):
        schedule.step()
        rates.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.05)


def test_unknown_names() -> None:
    module = shrunk()
    optimizer = torch.optim.SGD(module.parameters())
    schedule = GrowthSchedule(module, total=4, grow_at=2)
    for options, text in (
        ({"after": "later"}, "after is 'later'; give scheduled or restart"),
        ({"decay": "fast"}, "decay is 'fast'; give constant, linear, cosine or steps"),
    ):
        with pytest.raises(graphscale.GraphScaleError, match=text):
            GrowthLR(schedule, optimizer, **options)
