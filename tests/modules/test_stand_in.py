"""An imported graph that replaces a module trains as the module does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale


class DropPath(nn.Module):
    """Stochastic depth, with the attributes that timm's has."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * kept / (1 - self.drop_prob)


class Fixed(nn.Module):
    """Has a size of the target written into its forward."""

    def __init__(self, dropped: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 2, 2)
        self.dropped = dropped
        nn.init.constant_(self.conv.bias, 100.0)  # nothing is zero by itself

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropped(F.pad(self.conv(x).reshape(-1, 8, 16, 16), (1, 1, 1, 1), "reflect"))


def shrink(dropped: nn.Module) -> nn.Module:
    with pytest.warns(UserWarning, match=r"dropout and drop-path layers work.*It lacks"):
        return graphscale.shrink(Fixed(dropped), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("dropped", "axes"), [(nn.Dropout(0.25), 4), (nn.Dropout2d(0.25), 2), (DropPath(0.25), 1)]
)
def test_dropout_is_alive_in_training(dropped: nn.Module, axes: int) -> None:
    torch.manual_seed(0)
    shrunk = shrink(dropped)
    x = torch.randn(2000, 3, *shrunk.graphscale_plan.image_size)
    whole, zero = shrunk.eval()(x), shrunk.train()(x) == 0
    assert not (whole == 0).any()
    together = zero.flatten(axes) if axes < 4 else zero.unsqueeze(-1)
    assert torch.equal(together.all(-1), together.any(-1))  # all of it or nothing
    assert abs(zero.float().mean() - 0.25) < 0.06
    kept = shrunk(x)
    same = torch.where(kept == 0, kept, kept * 0.75)
    torch.testing.assert_close(same[kept != 0], whole[kept != 0])


def test_it_survives_saving_and_growing() -> None:
    shrunk = shrink(DropPath(0.5))
    again = graphscale.load(graphscale.save(shrunk))
    x = torch.randn(64, 3, *shrunk.graphscale_plan.image_size)
    assert (again.train()(x) == 0).any()
    grown = graphscale.grow(shrunk)
    assert isinstance(grown, Fixed)
    assert grown.dropped.drop_prob == 0.5


def test_its_plan_is_the_plan_that_was_asked_for() -> None:
    """Kernels that keep their size are tried, to keep the class. They do not help this one."""
    target = Fixed(nn.Dropout(0.1))
    target.conv.kernel_size = (3, 3)
    target.conv.weight = nn.Parameter(target.conv.weight[:, :, 1:4, 1:4].clone())
    target.conv.padding = (1, 1)
    target.conv._reversed_padding_repeated_twice = [1] * 4
    example = torch.randn(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="cannot take the plan's sizes"):
        shrunk = graphscale.shrink(target, example)
    assert shrunk.conv.weight.shape == (8, 3, 2, 2)
    planned = graphscale.plan(target, example)
    assert shrunk.graphscale_plan.multiplications() == planned.multiplications()
    assert shrunk.graphscale_plan.image_size == planned.image_size


class Blocks(nn.Module):
    """Has a size written into its forward, and attention that torch.onnx does not translate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).reshape(-1, 2, 1, 4, 256).transpose(3, 4)
        return F.scaled_dot_product_attention(x, x, x)


def test_what_only_the_quick_trace_translates() -> None:
    target = Blocks()
    with pytest.warns(UserWarning, match="cannot take the plan's sizes"):
        shrunk = graphscale.shrink(target, torch.randn(2, 3, 32, 32), init="resize")
    height, width = shrunk.graphscale_plan.image_size
    x = torch.randn(2, 3, height, width)
    small = F.conv2d(x, shrunk.conv.weight, shrunk.conv.bias, 2)
    small = small.reshape(2, 2, 1, 4, -1).mT
    assert small.shape[3] < 256
    torch.testing.assert_close(shrunk(x), F.scaled_dot_product_attention(small, small, small))
    assert type(graphscale.grow(shrunk)) is Blocks
