"""Growing modules that were shrunk twice or are on the meta device, and with a wrong target."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale.modules.resize_weight import grow_weight, shrink_weight

EXAMPLE = torch.randn(2, 3, 64, 64)


def target() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 11, padding=5),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 7, padding=3),
        nn.Flatten(),
        nn.Linear(8 * 32 * 32, 5),
    )


def shapes(module: nn.Module) -> list[torch.Size]:
    return [each.shape for each in module.parameters()]


def test_a_shrunk_module_shrinks_and_grows_again() -> None:
    large = target()
    medium = graphscale.shrink(large, EXAMPLE)
    size = medium.graphscale_plan.image_size
    small = graphscale.shrink(medium, torch.randn(2, 3, *size))
    assert type(small) is nn.Sequential
    assert small[0].weight.shape[2:] == (5, 5)
    inner = small.graphscale_plan.image_size
    assert max(inner) < max(size)
    small(torch.randn(2, 3, *inner))
    back = graphscale.grow(small)
    assert shapes(back) == shapes(medium)
    assert back.graphscale_plan == medium.graphscale_plan
    x = torch.randn(2, 3, *size)
    filled = copy.deepcopy(back)
    filled.load_state_dict(medium.state_dict())
    torch.testing.assert_close(filled(x), medium(x))
    grown = graphscale.grow(back)
    assert shapes(grown) == shapes(large)
    assert not hasattr(grown, "graphscale_plan")
    grown.load_state_dict(large.state_dict())
    torch.testing.assert_close(grown(EXAMPLE), large(EXAMPLE))


class Block(nn.Module):
    """A residual block on a map of a few pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.first = nn.Conv2d(4, 4, 3, 1, 1)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + self.second(self.first(x).relu())


def test_a_small_map_is_not_mixed_into_one_pixel_so_that_it_shrinks_again() -> None:
    medium = graphscale.shrink(Block(), torch.randn(2, 3, 6, 6))
    assert medium.stem(torch.randn(1, 3, 4, 4)).shape[2:] == (2, 2)
    assert medium.first(torch.randn(1, 4, 2, 2)).shape[2:] != (1, 1)
    small = graphscale.shrink(medium, torch.randn(2, 3, 4, 4))
    assert type(small) is Block
    assert shapes(graphscale.grow(small)) == shapes(medium)


def test_meta_modules() -> None:
    with torch.device("meta"):
        large = target()
    small = graphscale.shrink(large, torch.randn(2, 3, 64, 64, device="meta"))
    assert all(each.is_meta for each in small.parameters())
    assert shapes(small) == shapes(graphscale.shrink(target(), EXAMPLE))
    grown = graphscale.grow(small)
    assert all(each.is_meta for each in grown.parameters())
    assert shapes(grown) == shapes(large)
    assert graphscale.plan(large, EXAMPLE).weights == small.graphscale_plan.weights


def test_plan_of_a_module() -> None:
    large = target()
    before = {name: each.clone() for name, each in large.state_dict().items()}
    plan = graphscale.plan(large, EXAMPLE, kernels={11: 5})
    small = graphscale.shrink(large, EXAMPLE, kernels={11: 5})
    assert plan.weights == small.graphscale_plan.weights
    assert plan.image_size == small.graphscale_plan.image_size
    assert large.training
    for name, each in large.state_dict().items():
        assert torch.equal(each, before[name])
    with pytest.raises(graphscale.GraphScaleError, match="example_input"):
        graphscale.plan(large)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_one_weight(dtype: torch.dtype) -> None:
    """Growth equals Eq. 5 by torch's interpolation; shrinking a grown tensor gives it back."""
    plan = graphscale.plan(target(), EXAMPLE).weights[0]
    small = torch.randn(plan.pretrain_shape, dtype=dtype).to(memory_format=torch.channels_last)
    large = grow_weight(small, plan)
    assert large.dtype == dtype
    assert large.is_contiguous(memory_format=torch.channels_last)
    expected = F.interpolate(small.double(), (11, 11), mode="bilinear") * (7 / 11) ** 2
    tolerance = 1e-6 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(large.double(), expected, rtol=tolerance, atol=tolerance)
    back = shrink_weight(large, plan)
    torch.testing.assert_close(back.double(), small.double(), rtol=tolerance, atol=10 * tolerance)
