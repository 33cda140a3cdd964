"""The schedule grows at its times, gives the image size, and resumes bit for bit from a file."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import graphscale
from graphscale.training import (
    BeforeDrop,
    GrowthLR,
    GrowthSchedule,
    GrowthStages,
    Plateau,
    ResizeInputs,
    SharedImageSize,
    resize_batch,
)

from .small_networks import EXAMPLE, batch, shrunk, target, train


def run(schedule: GrowthSchedule, scores: list[float] | None = None) -> list[tuple[int, int]]:
    """The image size of every unit."""
    sizes = []
    for position in schedule:
        sizes.append(schedule.image_size)
        schedule.step(None if scores is None else scores[position])
    return sizes


def test_after_a_number_of_units() -> None:
    schedule = GrowthSchedule(shrunk(), total=5, grow_at=3)
    small = tuple(shrunk().graphscale_plan.inputs[0].pretrain[2:])
    assert run(schedule) == [small] * 3 + [(32, 32)] * 2
    assert schedule.grown
    assert schedule.finished
    assert schedule.module(batch()).shape == (4, 5)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (0.7, 7),
        (BeforeDrop([5, 8]), 4),
        (BeforeDrop([8, 5], units=2), 3),
        (
            BeforeDrop(
                torch.optim.lr_scheduler.MultiStepLR(
                    torch.optim.SGD(nn.Linear(1, 1).parameters()), [6, 9]
                )
            ),
            5,
        ),
    ],
)
def test_times(when: Any, expected: int) -> None:
    schedule = GrowthSchedule(shrunk(), total=10, grow_at=when)
    run(schedule)
    assert schedule.grown_at == [expected]


def test_plateau() -> None:
    scores = [0.5, 0.6, 0.605, 0.59, 0.7, 0.8, 0.8, 0.8]
    for when, expected in (
        (Plateau(patience=2, min_delta=0.01), 4),
        (Plateau(patience=3, min_delta=0.01), 7),  # the latest time
        (Plateau(patience=3, min_delta=0.01, latest=0.5), 4),
        (Plateau(patience=1), 4),
    ):
        schedule = GrowthSchedule(shrunk(), total=8, grow_at=when)
        run(schedule, scores)
        assert schedule.grown_at == [expected]
    schedule = GrowthSchedule(
        shrunk(), total=8, grow_at=Plateau(patience=2), higher_is_better=False
    )
    run(schedule, scores)
    assert schedule.grown_at == [3]


def test_extra_units_until_the_score_drops() -> None:
    schedule = GrowthSchedule(shrunk(), total=6, grow_at=2, extra_until_drop=9)
    scores = [0.5, 0.6, 0.4, 0.5, 0.6, 0.55, 0.6, 0.7, 0.6, 0.7]
    held = []
    for position in schedule:
        schedule.step(scores[position])
        held.append(schedule.holding)
    assert held == [False, True, True, True, True, False, False, False, False, False]
    assert schedule.extra == 4
    assert schedule.position == 10
    schedule = GrowthSchedule(shrunk(), total=6, grow_at=2, extra_until_drop=3)
    run(schedule)
    assert schedule.position == 9


def test_stages_and_sizes_for_workers_and_inputs() -> None:
    stages = GrowthStages(target(), EXAMPLE, [{"input_size": 20}, {"input_size": 26}])
    size = SharedImageSize(1)
    average = AveragedModel(stages.module)
    schedule = GrowthSchedule(
        stages.module,
        total=6,
        grow_at=[2, 0.67],
        later=stages.later,
        averages=average,
        shared_size=size,
        resize_inputs=True,
    )
    sizes = []
    for _ in schedule:
        sizes.append(size.size)
        assert stages.module(batch()).shape == (4, 5)
        assert average(batch()).shape == (4, 5)
        schedule.step()
    assert sizes == [(20, 20)] * 2 + [(26, 26)] * 2 + [(32, 32)] * 2
    for module in (stages.module, average.module):
        assert not any(isinstance(h, ResizeInputs) for h in module._forward_pre_hooks.values())


class Training:
    """A module, its optimizer and schedules, newly made; saved and loaded as by a training loop."""

    def __init__(self) -> None:
        self.model = shrunk()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.average = AveragedModel(self.model)
        self.schedule = GrowthSchedule(
            self.model,
            total=6,
            grow_at=3,
            optimizers=self.optimizer,
            averages=self.average,
            extra_until_drop=2,
        )
        scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.rates = GrowthLR(
            self.schedule, self.optimizer, scheduler, after="restart", height=0.5, warmup=1
        )
        self.losses: list[float] = []

    def parts(self) -> dict[str, Any]:
        """What has a state dict; the schedule first, because it grows the module."""
        names = ("schedule", "model", "optimizer", "average", "rates")
        return {name: getattr(self, name) for name in names}

    def run(self, until: int) -> None:
        for unit in self.schedule:
            x = resize_batch(batch(seed=unit), self.schedule.image_size)
            loss = train(self.model, self.optimizer, x, 1)
            self.average.update_parameters(self.model)
            self.losses.append(loss.item())
            self.schedule.step(score=-loss.item())
            self.rates.step()
            if self.schedule.position == until:
                return


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_goes_on_bit_for_bit(stop: int) -> None:
    whole = Training()
    whole.run(100)
    first = Training()
    first.run(stop)
    file = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in first.parts().items()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = Training()
    for name, part in second.parts().items():
        part.load_state_dict(state[name])
    second.run(100)
    assert first.losses + second.losses == whole.losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, second.average.state_dict()[name])
    assert second.schedule.state_dict() == whole.schedule.state_dict()


class ChannelsLast(nn.Module):
    """Takes images N×H×W×C."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).mean((2, 3))


def test_the_image_size_of_a_network_with_channels_last() -> None:
    module = graphscale.shrink(ChannelsLast(), torch.zeros(1, 48, 64, 3), input_size=(32, 43))
    schedule = GrowthSchedule(module, total=2, grow_at=1)
    assert schedule.image_size == module.graphscale_plan.image_size == (32, 43)
    schedule.step()
    assert schedule.image_size == (48, 64)


def test_errors_say_what_to_do() -> None:
    module = shrunk()
    for options, text in (
        ({"total": 5, "grow_at": 5}, "increasing times inside the training"),
        ({"total": 5, "grow_at": [2, 3]}, "one time for each"),
        ({"total": 5, "grow_at": 2, "resize": "cubic"}, "cubic"),
        ({"total": 5, "grow_at": 2, "amplitude": "peak"}, "amplitude is 'peak'; give"),
    ):
        with pytest.raises(graphscale.GraphScaleError, match=text):
            GrowthSchedule(module, **options)
    with pytest.raises(graphscale.GraphScaleError, match="carries no plan"):
        GrowthSchedule(target(), total=5, grow_at=2)
    schedule = GrowthSchedule(module, total=5, grow_at=2)
    with pytest.raises(graphscale.GraphScaleError, match="was not called"):
        list(schedule)
    before = copy.deepcopy(schedule.state_dict())
    schedule.grow()
    with pytest.raises(graphscale.GraphScaleError, match="no further stage"):
        schedule.grow()
    with pytest.raises(graphscale.GraphScaleError, match="has grown further"):
        schedule.load_state_dict(before)
