"""A vision transformer with a class token, which takes images of any size, keeps its class."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import graphscale

from .rescaled import images, shrink

PATCH, SIZE = 8, 32


class Patches(nn.Module):
    """What timm calls a patch embedding, with the sizes that it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.img_size, self.grid_size = (SIZE, SIZE), (SIZE // PATCH, SIZE // PATCH)
        self.proj = nn.Conv2d(3, 6, PATCH, PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % PATCH == 0
        return self.proj(x).permute(0, 2, 3, 1)


class Transformer(nn.Module):
    """Patches behind a class token; the positions are resampled to the image in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = Patches()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (SIZE // PATCH) ** 2, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        token, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.reshape(1, *self.patches.grid_size, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, x.shape[1:3], mode="bilinear")
        positions = torch.cat([token, grid.permute(0, 2, 3, 1).reshape(1, -1, 6)], dim=1)
        tokens = self.cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat([tokens, x.flatten(1, 2)], dim=1) + positions
        scores = (x @ x.transpose(1, 2)).softmax(-1)
        return self.head((scores @ x)[:, 0])


def test_class_keys_and_positions() -> None:
    torch.manual_seed(0)
    target = Transformer().eval()
    small = shrink(target, torch.randn(2, 3, SIZE, SIZE))
    assert small.graphscale_plan.image_size == (24, 24)  # whole patches, not 21 pixels
    assert small.patches.grid_size == (3, 3)
    assert small.pos_embed.shape == (1, 10, 6)
    small(images(small)).sum().backward()
    grown = graphscale.grow(small)
    assert type(grown) is Transformer
    assert grown.patches.grid_size == (4, 4)
    assert list(grown.state_dict()) == list(target.state_dict())
    # By hand: four pixels of three, at half-pixel centres, -0.125, 0.625, 1.375 and 2.125.
    line = [[1, 0, 0], [0.375, 0.625, 0], [0, 0.625, 0.375], [0, 0, 1]]
    found = grown.pos_embed.detach().numpy()[0]
    given = small.pos_embed.detach().numpy()[0].astype(float)
    by_hand = np.einsum("ia,jb,abc->ijc", line, line, given[1:].reshape(3, 3, 6)).reshape(16, 6)
    np.testing.assert_allclose(found[0], given[0], rtol=1e-6)
    np.testing.assert_allclose(found[1:], by_hand, rtol=1e-5, atol=1e-6)
    restored = graphscale.grow(small.state_dict(), target=target)
    assert all(torch.equal(a, b) for a, b in zip(restored.parameters(), grown.parameters()))
    grown.load_state_dict(target.state_dict())
    image = torch.randn(1, 3, SIZE, SIZE)
    torch.testing.assert_close(grown.eval()(image), target(image))
