"""Parts of a module that run only in training are shrunk and grown with it."""

import torch
from torch import nn

import graphscale

from .rescaled import shrink

EXAMPLE = torch.randn(2, 3, 24, 24)


class Auxiliary(nn.Module):
    """A network with a second classifier in training, whose kernel covers its map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.early = nn.Sequential(nn.Conv2d(4, 4, 12), nn.Flatten(), nn.Linear(4, 2))
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor):
        x = self.body(x)
        scores = self.head(x.mean((2, 3)))
        return (scores, self.early(x)) if self.training else scores


def test_the_second_classifier_fits_the_smaller_images() -> None:
    torch.manual_seed(0)
    target = Auxiliary()
    small = shrink(target, EXAMPLE)
    assert small.training
    assert small.body[1].training
    pixels = small.graphscale_plan.image_size[0]
    assert small.early[0].kernel_size == ((pixels + 1) // 2,) * 2
    x = torch.randn(2, 3, pixels, pixels)
    scores, early = small.train()(x)
    assert scores.shape == early.shape == (2, 2)
    assert small.eval()(x).shape == (2, 2)
    assert graphscale.plan(target, EXAMPLE).weights == small.graphscale_plan.weights
    grown = graphscale.grow(small)
    assert type(grown) is Auxiliary
    assert grown.early[0].weight.shape == target.early[0].weight.shape
    grown.load_state_dict(target.state_dict())
    for one, other in zip(grown.train()(EXAMPLE), target.train()(EXAMPLE)):
        torch.testing.assert_close(one, other)


class Untraceable(Auxiliary):
    """What runs in training cannot be traced."""

    def forward(self, x: torch.Tensor):
        if self.training and x.sum() > 1e9:
            return super().forward(-x)
        return super().forward(x) if not self.training else self.head(self.body(x).mean((2, 3)))


def test_parts_that_cannot_be_traced_are_left_as_they_are() -> None:
    small = shrink(Untraceable(), EXAMPLE)
    assert small.early[0].kernel_size == (12, 12)
    assert small.body[0].kernel_size == (2, 2)
