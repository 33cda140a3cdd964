"""Tiny networks for the tests of this folder, shrunk once, and batches of their sizes."""

import copy
import warnings
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

import graphscale

SIZE = 32
EXAMPLE = torch.zeros(2, 3, SIZE, SIZE)


class Small(nn.Module):
    """A 7×7, a depthwise 5×5 and a 3×3 kernel, BatchNorm, an interface; shared and frozen parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.alias = nn.Conv2d(8, 8, 3, padding=1)
        self.alias.weight = self.second.weight
        self.linear = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        x = self.alias(self.second(self.depthwise(x).relu()).relu())
        return self.linear(x.flatten(1))


class Fixed(Small):
    """Has a size of the target written into its forward, so it becomes an imported graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return self.linear(self.second(x).relu().view(-1, 8 * 8 * 8))


@cache
def _shrunk(kind: type) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    target = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if kind is Small else "ignore", UserWarning)
        return target, graphscale.shrink(target, EXAMPLE)


def target() -> nn.Module:
    return copy.deepcopy(_shrunk(Small)[0])


def shrunk(kind: type = Small) -> nn.Module:
    """A pre-train network in training mode."""
    return copy.deepcopy(_shrunk(kind)[1]).train()


def batch(module: nn.Module | None = None, seed: int = 1) -> torch.Tensor:
    """Random images of the size that the module's plan names; of the target's without a plan."""
    shape = EXAMPLE.shape[1:]
    if module is not None:
        shape = module.graphscale_plan.inputs[0].pretrain[1:]
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, steps: int = 2):
    """Steps of training; returns the last loss, whose graph keeps autograd's nodes alive."""
    labels = torch.arange(len(x)) % 5
    for _ in range(steps):
        loss = F.cross_entropy(module(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss
