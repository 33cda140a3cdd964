"""FusedSGD: the weights and the state of torch.optim.SGD, in every memory format."""

import copy

import pytest
import torch
from torch import nn

from graphscale.training import FusedSGD


def network(format_: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 2), nn.Conv2d(8, 4, 1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(64, 5)).to(memory_format=format_)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    generator = torch.Generator().manual_seed(1)
    format_ = torch.channels_last if not module[0].weight.is_contiguous() else None
    for _ in range(steps):
        x = torch.randn(2, 3, 7, 7, generator=generator)
        x = x.contiguous(memory_format=format_ or torch.contiguous_format)
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.9},
        {"weight_decay": 0.01},
    ],
    ids=["nesterov", "momentum", "plain"],
)
def test_equals_sgd(format_, options):
    fused, plain = (network(format_) for _ in range(2))
    optimizers = [FusedSGD(fused.parameters(), lr=0.1, **options)]
    optimizers.append(torch.optim.SGD(plain.parameters(), lr=0.1, foreach=False, **options))
    for module, optimizer in zip((fused, plain), optimizers):
        train(module, optimizer)
    for found, wanted in zip(fused.parameters(), plain.parameters()):
        assert found.stride() == wanted.stride()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    for found, wanted in zip(*(state.values() for state in states)):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_takes_over_the_state_of_sgd_and_goes_on_bit_for_bit():
    module = network(torch.channels_last)
    plain = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    train(module, plain)
    twins = [copy.deepcopy(module) for _ in range(2)]
    optimizers = [FusedSGD(each.parameters(), lr=0.1, momentum=0.9) for each in twins]
    optimizers[0].load_state_dict(copy.deepcopy(plain.state_dict()))
    train(twins[0], optimizers[0], steps=1)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    twins[1].load_state_dict(twins[0].state_dict())
    for each, optimizer in zip(twins, optimizers):
        train(each, optimizer)
    train(module, plain, steps=1)
    train(module, plain)
    for one, other, wanted in zip(*(each.parameters() for each in (*twins, module))):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-7)


def test_parameters_whose_first_gradient_comes_late():
    # As with stochastic depth, where a block has no gradient in some steps.
    for kind in (FusedSGD, torch.optim.SGD):
        torch.manual_seed(0)
        first, second = (nn.Parameter(torch.randn(4)) for _ in range(2))
        optimizer = kind([first, second], lr=0.1, momentum=0.9)
        for both in (False, True, False):
            optimizer.zero_grad()
            (first.square().sum() + (second.square().sum() if both else 0)).backward()
            optimizer.step()
        if kind is FusedSGD:
            found = first.detach().clone(), second.detach().clone()
    torch.testing.assert_close(found, (first.detach(), second.detach()))


def test_closure():
    weight = nn.Parameter(torch.ones(3))
    optimizer = FusedSGD([weight], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert weight.tolist() == [0.5] * 3
