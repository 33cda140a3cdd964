"""DataParallel on two and three ranks equals one process with all images; growth keeps it so."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

import graphscale
from graphscale import GraphScaleError
from graphscale.distributed import DataParallel
from tests.distributed.ranks import on_ranks

BATCH = 12


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).double()


def images(step: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 3, size, size, generator=generator, dtype=torch.float64)


def train(module: nn.Module, rank: int, ranks: int, steps: int, grow_at: int) -> list[float]:
    """SGD with momentum; before step `grow_at` the network grows. Returns the losses."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    labels = torch.arange(BATCH) % 5
    losses = []
    for step in range(steps):
        if step == grow_at:
            graphscale.grow_(module, optimizers=optimizer)
        x = images(step, 32 if step >= grow_at else 22)
        share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
        loss = F.cross_entropy(module(x[share]), labels[share])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def shrunk() -> nn.Module:
    return graphscale.shrink(network(), torch.zeros(2, 3, 32, 32, dtype=torch.float64))


def train_in_rank(rank: int, pretrain: nn.Module) -> tuple:
    ranks = distributed.get_world_size()
    mean = DataParallel(copy.deepcopy(pretrain))
    train(mean, rank, ranks, steps=4, grow_at=2)
    one_bit = DataParallel(pretrain, gradient="onebit", warm_up_steps=1, min_elements=64)
    train(one_bit, rank, ranks, steps=6, grow_at=3)
    state = one_bit.one_bit.state_dict()
    assert state["step"] == 6
    assert state["residuals"]["0.weight"].shape == (8, 3, 7, 7)
    return mean.module.state_dict(), one_bit.module.state_dict()


@pytest.mark.parametrize("ranks", [2, 3])
def test_as_one_process_with_growth(ranks):
    alone = shrunk()
    answers = on_ranks(ranks, train_in_rank, alone)
    train(alone, 0, 1, steps=4, grow_at=2)
    for name, wanted in alone.state_dict().items():
        torch.testing.assert_close(answers[0][0][name], wanted, rtol=0, atol=1e-12)
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            assert all(torch.equal(same[name], each) for name, each in one.items())
    assert answers[0][1]["0.weight"].shape == (8, 3, 7, 7)


def test_refusals():
    with pytest.raises(GraphScaleError, match="start the script by torchrun"):
        DataParallel(nn.Linear(2, 2))
    with pytest.raises(GraphScaleError, match="'sum'; use mean or onebit"):
        DataParallel(nn.Linear(2, 2), gradient="sum")
    with pytest.raises(GraphScaleError, match="'onebit' cannot; use torch"):
        DataParallel(nn.Linear(2, 2), gradient="onebit", mixed_precision=object())


def copy_in_rank(rank: int) -> None:
    module = DataParallel(nn.Linear(64, 64), gradient="onebit", warm_up_steps=0, min_elements=1)
    module(torch.ones(2, 64)).sum().backward()
    state = copy.deepcopy(module.one_bit.state_dict())
    with pytest.raises(GraphScaleError, match=r"residual of \[64, 64\] for 'weight'"):
        DataParallel(nn.Linear(2, 64), gradient="onebit").one_bit.load_state_dict(state)


def test_state_of_another_network():
    on_ranks(1, copy_in_rank)
