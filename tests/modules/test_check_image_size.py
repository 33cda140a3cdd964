"""A shrunk module refuses images of another size at the first batch."""

import copy
import io

import pytest
import torch
from torch import nn

import graphscale

from .rescaled import images, shrink


def target() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_the_message_has_the_right_size() -> None:
    shrunk = shrink(target(), torch.randn(2, 3, 40, 30))
    height, width = shrunk.graphscale_plan.image_size
    shrunk(torch.randn(4, 3, height, width))
    with pytest.raises(graphscale.GraphScaleError, match=rf"takes \[4, 3, {height}, {width}\]"):
        shrunk(torch.randn(4, 3, 40, 30))
    grown = graphscale.grow(shrunk)
    assert grown(torch.randn(4, 3, 40, 30)).shape == (4, 8)


def test_it_is_copied_and_pickled() -> None:
    shrunk = shrink(target(), torch.randn(2, 3, 40, 40))
    file = io.BytesIO()
    torch.save(shrunk, file)
    file.seek(0)
    for twin in (copy.deepcopy(shrunk), torch.load(file, weights_only=False)):
        with pytest.raises(graphscale.GraphScaleError, match="grow the network first"):
            twin(torch.randn(2, 3, 40, 40))


def test_compiled_and_exported() -> None:
    shrunk = shrink(target(), torch.randn(2, 3, 40, 40))
    x = images(shrunk)
    compiled = torch.compile(shrunk, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), shrunk(x))
    program = torch.export.export(shrunk, (x,))
    torch.testing.assert_close(program.module()(x), shrunk(x))


def test_keywords() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 5)

        def forward(self, gain: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return self.conv(image) * gain

    gain = torch.ones(2, 1, 1, 1)
    shrunk = shrink(Two(), {"gain": gain, "image": torch.randn(2, 3, 40, 40)})
    shrunk(gain=gain, image=torch.randn(2, 3, *shrunk.graphscale_plan.image_size))
    with pytest.raises(graphscale.GraphScaleError, match="takes"):
        shrunk(gain=gain, image=torch.randn(2, 3, 40, 40))


def test_in_the_imported_graph() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 5, padding=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).reshape(-1, 8, 40 * 40).mean(2)

    with pytest.warns(UserWarning, match=r"graphscale\.load"):
        shrunk = graphscale.shrink(Fixed(), torch.randn(2, 3, 40, 40))
    with pytest.raises(graphscale.GraphScaleError, match="takes"):
        shrunk(torch.randn(2, 3, 40, 40))
