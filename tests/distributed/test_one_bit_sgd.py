"""OneBitSGD and OneBitDataParallel against numpy, over ranks, checkpoints and faulty gradients."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from graphscale import GraphScaleError
from graphscale.distributed import OneBitDataParallel, OneBitSGD
from tests.distributed.one_bit_reference import quantized
from tests.distributed.ranks import on_ranks

STEPS = 5
LR, MOMENTUM = 0.1, 0.9


class Given(nn.Module):
    """A module whose parameters have the gradients that it is called with."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(5, 7, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(6, dtype=torch.float64))

    def forward(self, weight, bias):
        return (self.weight * weight).sum() + (self.bias * bias).sum()


def gradients(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 7), (6,))
    )


class Reference:
    """AdaGrad and momentum on the mean; with one bit both ways."""

    def __init__(self, ranks: int, one_bit: bool) -> None:
        self.ranks, self.one_bit = ranks, one_bit
        self.residuals = [0.0] * ranks
        self.home = self.total = self.h = 0.0

    def __call__(self, given: list[np.ndarray]) -> np.ndarray:
        if self.one_bit:
            v = [g + e for g, e in zip(given, self.residuals)]
            given = [quantized(each) for each in v]
            self.residuals = [each - sent for each, sent in zip(v, given)]
        mean = sum(given) / self.ranks
        self.total = self.total + mean**2
        self.h = MOMENTUM * self.h + LR * mean / np.sqrt(self.total)
        if not self.one_bit:
            return self.h
        step = quantized(self.h + self.home)
        self.home = self.h + self.home - step
        return step


def train_in_rank(rank: int) -> list:
    module = OneBitDataParallel(Given(seed=rank), lr=LR, momentum=MOMENTUM)
    weights = []
    for step in range(STEPS):
        if step == 3:  # from a checkpoint of this rank
            saved = copy.deepcopy(module.optimizer.state_dict())
            parameters = module.state_dict()
            module = OneBitDataParallel(Given(seed=9), lr=LR, momentum=MOMENTUM)
            module.load_state_dict(parameters)
            module.optimizer.load_state_dict(saved)
        module(*gradients(rank, step)).backward()
        module.step()
        weights.append([each.detach().clone() for each in module.parameters()])
    return weights


@pytest.mark.parametrize("ranks", [2, 3])
def test_against_numpy(ranks):
    answers = on_ranks(ranks, train_in_rank)
    start = [each.detach().numpy() for each in Given().parameters()]
    for i, one_bit in enumerate((True, False)):
        reference, weight = Reference(ranks, one_bit), start[i]
        for step in range(STEPS):
            weight = weight - reference([gradients(r, step)[i].numpy() for r in range(ranks)])
            for answer in answers:
                np.testing.assert_allclose(answer[step][i].numpy(), weight, atol=1e-12)
                assert torch.equal(answer[step][i], answers[0][step][i])


def faulty_in_rank(rank: int) -> None:
    module = Given()
    optimizer = OneBitSGD(module.named_parameters(), lr=LR, momentum=MOMENTUM)
    module(*gradients(rank, 0)).backward()
    optimizer.step()
    before = [each.detach().clone() for each in module.parameters()]
    optimizer.zero_grad()
    weight, bias = gradients(rank, 1)
    if rank == 0:
        weight[2, 3] = float("nan")
        bias[1] = float("inf")
    module(weight, bias).backward()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    (message,) = [str(each.message) for each in caught if "NaN" in str(each.message)]
    assert "'weight', 'bias'" in message
    changed = (module.weight != before[0]).all(1)
    assert changed.tolist() == [True, True, False, True, True]
    assert torch.equal(module.bias, before[1])
    optimizer.zero_grad()
    module(*gradients(rank, 2)).backward()
    optimizer.step()
    assert all(each.isfinite().all() for each in module.parameters())
    assert not torch.equal(module.bias, before[1])
    unused = [each.detach().clone() for each in module.parameters()]
    optimizer.zero_grad()
    if rank == 0:
        module(*gradients(rank, 3)).backward()
    optimizer.step()  # rank 1 has no gradient
    assert all(not torch.equal(a, b) for a, b in zip(unused, module.parameters()))


def test_faulty_and_missing_gradients():
    on_ranks(2, faulty_in_rank)


class AnyGradient(nn.Module):
    """Weights in channels_last, few and many elements; none at all; a sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, rows in (("small", 1), ("large", 4)):
            weight = torch.randn(rows, 3, 2, 2, dtype=torch.float64)
            setattr(self, name, nn.Parameter(weight.to(memory_format=torch.channels_last)))
        self.empty = nn.Parameter(torch.zeros(0, 4, dtype=torch.float64))
        self.table = nn.Embedding(6, 8, sparse=True, dtype=torch.float64)

    def forward(self, small, large, rows):
        looked_up = self.table(torch.tensor([1, 4])) * rows
        return (self.small * small).sum() + (self.large * large).sum() + looked_up.sum()


def any_gradients(rank: int, step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    shapes = ((1, 3, 2, 2), (4, 3, 2, 2), (2, 8))
    return tuple(torch.randn(each, generator=generator, dtype=torch.float64) for each in shapes)


def any_gradient_in_rank(rank: int, scale: float | None) -> list[torch.Tensor]:
    module = AnyGradient()
    optimizer = OneBitSGD(module.named_parameters(), lr=LR, momentum=MOMENTUM)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    for step in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(module(*any_gradients(rank, step)) + module.empty.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return [module.small.detach(), module.large.detach(), module.table.weight.detach()]


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_memory_formats_sparse_gradients_and_grad_scaler(scale):
    answers = on_ranks(2, any_gradient_in_rank, scale)
    start = AnyGradient()
    weights = [start.small, start.large, start.table.weight]
    for i, weight in enumerate(each.detach().flatten(1).numpy() for each in weights):
        reference = Reference(2, one_bit=i > 0)
        for step in range(STEPS):
            given = [any_gradients(rank, step)[i].flatten(1).numpy() for rank in range(2)]
            if i == 2:  # all rows but two are without a gradient, and have no step
                weight[[1, 4]] -= reference(given)
            else:
                weight = weight - reference(given)
        for answer in answers:
            np.testing.assert_allclose(answer[i].flatten(1).numpy(), weight, atol=1e-12)


def infinity_in_rank(rank: int) -> list[torch.Tensor]:
    """On one rank a GradScaler finds an infinity, and then a gradient has an infinite square."""
    module = Given().float()
    optimizer = OneBitSGD(module.named_parameters(), lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step, factor in enumerate((1.0, float("inf"), 1e25, 1.0)):
        before = [each.detach().clone() for each in module.parameters()]
        optimizer.zero_grad()
        given = [each.float() * (factor if rank else 1.0) for each in gradients(rank, step)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scaler.scale(module(*given)).backward()
            scaler.step(optimizer)
        scaler.update()
        for old, parameter in zip(before, module.parameters()):
            assert (old != parameter).all() == (factor == 1.0)
    return [each.detach() for each in module.parameters()]


def test_infinities_do_not_stay():
    one, other = on_ranks(2, infinity_in_rank)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


def refuse_in_rank(rank: int) -> None:
    with pytest.raises(GraphScaleError, match="less than 1 for momentum"):
        OneBitSGD([torch.zeros(1)], momentum=1.0)


def test_refusals():
    with pytest.raises(GraphScaleError, match="start the script by torchrun"):
        OneBitSGD([torch.zeros(1)])
    on_ranks(1, refuse_in_rank)
