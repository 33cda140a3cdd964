"""Whole checkpoints of split networks, loaded by other numbers of ranks and by torch's own code."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import set_state_dict

from graphscale import GraphScaleError
from graphscale.distributed import (
    DataParallel,
    ModelParallel,
    PipelineParallel,
    get_full_state_dict,
    set_full_state_dict,
)
from graphscale.layers import HierarchicalSoftmax, LookupTable
from tests.distributed.ranks import on_ranks

CLASSES, BATCH = 23, 12


class End(nn.Module):
    """A wide layer and a hierarchical softmax."""

    def __init__(self) -> None:
        super().__init__()
        clusters = torch.randint(5, (CLASSES,), generator=torch.Generator().manual_seed(1))
        self.wide = nn.Linear(7, 5)
        self.softmax = HierarchicalSoftmax(5, CLASSES, clusters)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.softmax(self.wide(x), target)


class Words(nn.Module):
    """A lookup table and an end, split over ranks, with a data-parallel part between."""

    def __init__(self, ranks: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = LookupTable(11, 6)
        self.middle = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh())
        self.end = End()
        self.double()
        if ranks > 1:
            self.table = ModelParallel(self.table)
            self.middle = DataParallel(self.middle)
            self.end = ModelParallel(self.end)

    def forward(self, words: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.end(self.middle(self.table(words)), target)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    """Two groups of parameters, with learning rates of their own."""
    tables = list(module.table.parameters())
    others = [each for name, each in module.named_parameters() if not name.startswith("table")]
    groups = [{"params": tables, "lr": 0.1}, {"params": others}]
    return torch.optim.Adam(groups, lr=0.02, weight_decay=0.01)


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        words = torch.randint(11, (BATCH,), generator=generator)
        target = torch.randint(CLASSES, (BATCH,), generator=generator)
        loss = module(words, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def begun_in_rank(rank: int) -> tuple[dict, dict]:
    module = Words(distributed.get_world_size())
    optimizer = adam(module)
    trained(module, optimizer, range(2))
    return get_full_state_dict(module, optimizer)


def resumed_in_rank(rank: int, weights: dict, moments: dict) -> list[float]:
    module = Words(distributed.get_world_size())
    optimizer = adam(module)
    set_full_state_dict(module, optimizer, weights, moments)
    found = trained(module, optimizer, range(2, 4))
    with pytest.raises(GraphScaleError, match=r"'table\.weight' is \[11, 7\] .* \[11, 6\] in the"):
        set_full_state_dict(module, None, {**weights, "table.weight": torch.zeros(11, 7)})
    other = weights["end.softmax.class_row"].flip(0)
    with pytest.raises(GraphScaleError, match="class_row of the checkpoint is of other clusters"):
        set_full_state_dict(module, None, {**weights, "end.softmax.class_row": other})
    with pytest.raises(GraphScaleError, match=r"lacks 'table\.weight'"):
        set_full_state_dict(module, None, {})
    one_group = torch.optim.Adam(module.parameters())
    with pytest.raises(GraphScaleError, match=r"group with 'table\.weight' is none in the check"):
        set_full_state_dict(module, one_group, weights, moments)
    with pytest.raises(GraphScaleError, match=r"a parameter of \[3\] in the optimizer is not one"):
        get_full_state_dict(module, torch.optim.Adam([nn.Parameter(torch.zeros(3))]))
    return found


def test_split_layers_resume_with_another_number_of_ranks() -> None:
    alone = Words()
    optimizer = adam(alone)
    trained(alone, optimizer, range(2))
    (weights, moments), others = on_ranks(2, begun_in_rank)
    assert others == ({}, {})
    assert weights.keys() == alone.state_dict().keys()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-10)
    for name, parameter in alone.named_parameters():
        for key, value in optimizer.state[parameter].items():
            torch.testing.assert_close(moments["state"][name][key], value, rtol=0, atol=1e-10)
    wanted = trained(alone, optimizer, range(2, 4))
    for losses in on_ranks(3, resumed_in_rank, weights, moments):
        torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-10)
    # torch's own code loads the same dicts into the whole network.
    whole = Words()
    optimizer = adam(whole)
    set_state_dict(whole, optimizer, model_state_dict=weights, optim_state_dict=moments)
    torch.testing.assert_close(trained(whole, optimizer, range(2, 4)), wanted, rtol=0, atol=1e-10)


# --- layers split by stage ------------------------------------------------------------------------


def staged(rank: int, state: tuple[dict, dict] | None = None) -> tuple[list[float], tuple]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Linear(6, 3)).double()
    module = PipelineParallel(layers, nn.MSELoss(), microbatches=3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    if state is not None:
        set_full_state_dict(module, optimizer, *state)
    losses = []
    for step in range(2) if state is None else range(2, 4):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.zero_grad()
        losses.append(module.step(x, x[:, :3]).item())
        optimizer.step()
    return losses, get_full_state_dict(module, optimizer)


def test_stages_resume_with_another_number_of_ranks() -> None:
    _, state = on_ranks(2, staged)[0]
    assert list(state[0]) == [f"{i}.{kind}" for i in (0, 2, 3) for kind in ("weight", "bias")]
    resumed = on_ranks(3, staged, state)[0][0]
    whole = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Linear(6, 3)).double()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9)
    set_state_dict(whole, optimizer, model_state_dict=state[0], optim_state_dict=state[1])
    for step, loss in zip(range(2, 4), resumed):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        wanted = nn.functional.mse_loss(whole(x), x[:, :3])
        assert loss == pytest.approx(wanted.item(), abs=1e-10)
        optimizer.zero_grad()
        wanted.backward()
        optimizer.step()
