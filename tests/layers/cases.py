"""A small example of every layer, for tests that every layer must pass."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from graphscale.layers import (
    CrossMapNormalization,
    FeatureLPPooling,
    FFTConv1d,
    FFTConv2d,
    GroupKMaxPool,
    HierarchicalSoftmax,
    LocallyConnected,
    LookupTable,
    Maxout,
    TemporalConv,
    TemporalKMaxPool,
    WeightedLookupTable,
)


@dataclass
class Case:
    layer: nn.Module
    inputs: tuple

    def __str__(self):
        return type(self.layer).__name__


def indices(*shape):
    return torch.randint(0, 7, shape)


torch.manual_seed(0)
CASES = [
    Case(FFTConv1d(3, 4, 5, padding=2), (torch.randn(2, 3, 30),)),
    Case(FFTConv2d(2, 4, 3, stride=2, groups=2), (torch.randn(2, 2, 9, 8),)),
    Case(TemporalConv(3, 4, 3, 2), (torch.randn(2, 9, 3),)),
    Case(LookupTable(7, 3, padding_idx=2), (indices(2, 5),)),
    Case(WeightedLookupTable(7, 3, padding_idx=2), (indices(2, 5), torch.rand(2, 5))),
    Case(HierarchicalSoftmax(3, 7, reduction="none"), (torch.randn(4, 3), indices(4))),
    Case(FeatureLPPooling(3, 2), (torch.randn(2, 8, 3),)),
    Case(FeatureLPPooling(3, 1, 2.5), (torch.randn(2, 8),)),
    Case(Maxout(2), (torch.randn(2, 8, 3),)),
    Case(CrossMapNormalization(3, 0.5), (torch.randn(2, 6, 3),)),
    Case(TemporalKMaxPool(3), (torch.randn(2, 8, 3),)),
    Case(GroupKMaxPool(4, 2), (torch.randn(3, 8),)),
    Case(LocallyConnected(2, 3, (5, 4), 2, (2, 1)), (torch.randn(2, 2, 5, 4),)),
]
every_layer = pytest.mark.parametrize("case", CASES, ids=str)


def in_double(case):
    """The layer as a function of its parameters and floating-point inputs, and these in float64."""
    given = [x.double().requires_grad_() if x.is_floating_point() else x for x in case.inputs]
    names = [name for name, _ in case.layer.named_parameters()]
    values = [p.detach().double().requires_grad_() for p in case.layer.parameters()]

    def function(*tensors):
        parameters = dict(zip(names, tensors[: len(names)]))
        rest = iter(tensors[len(names) :])
        inputs = [next(rest) if x.is_floating_point() else x for x in given]
        return torch.func.functional_call(case.layer, parameters, tuple(inputs))

    return function, (*values, *(x for x in given if x.is_floating_point()))
