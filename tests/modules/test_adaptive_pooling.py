"""Adaptive pooling by windows of different sizes: the layer keeps its class and gets new sizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale

from .rescaled import images, shrink


def test_the_size_that_a_layer_pools_to_follows_the_map() -> None:
    torch.manual_seed(0)
    target = nn.Sequential(
        nn.Conv2d(3, 4, 7, 1, 3), nn.AdaptiveAvgPool2d((5, 7)), nn.Flatten(), nn.Linear(140, 3)
    ).eval()
    small = shrink(target, torch.randn(2, 3, 24, 24))
    assert small.graphscale_plan.image_size == (17, 17)
    # 17/24 of five and of seven pixels, to the nearest.
    assert small[1].output_size == (4, 5)
    assert small[3].in_features == 80
    x = images(small).double()
    weights = {name: tensor.double() for name, tensor in small.state_dict().items()}
    pooled = F.adaptive_avg_pool2d(
        F.conv2d(x, weights["0.weight"], weights["0.bias"], padding=2), (4, 5)
    )
    wanted = pooled.flatten(1) @ weights["3.weight"].T + weights["3.bias"]
    torch.testing.assert_close(small(x.float()).double(), wanted, rtol=1e-4, atol=1e-5)
    grown = graphscale.grow(small)
    assert grown[1].output_size == (5, 7)
    assert grown(torch.randn(1, 3, 24, 24)).shape == (1, 3)


class Head(nn.Module):
    """The head of timm's VGG: smaller maps are pooled up to the size of the first kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.input_kernel_size = 7
        self.fc1 = nn.Conv2d(4, 6, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.input_kernel_size
        if min(x.shape[-2:]) < size:
            x = F.adaptive_avg_pool2d(x, [max(size, side) for side in x.shape[-2:]])
        return self.fc1(x).mean((2, 3))


@pytest.mark.parametrize(("image", "small_image"), [(16, 12), (56, 40)])
def test_a_head_that_pools_to_the_size_of_its_kernel(image: int, small_image: int) -> None:
    target = nn.Sequential(nn.Conv2d(3, 4, 7, 4, 3), nn.MaxPool2d(2), Head()).eval()
    small = shrink(target, torch.randn(2, 3, image, image))
    assert small.graphscale_plan.image_size == (small_image, small_image)
    assert small[2].fc1.kernel_size == (5, 5)
    assert small[2].input_kernel_size == 5
    assert small(images(small)).shape == (2, 6)
    assert graphscale.grow(small)[2].input_kernel_size == 7
