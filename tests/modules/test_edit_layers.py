"""Every kind of layer can have the sizes of the shrunk graph, and again those of the target's."""

import pytest
import torch
from torch import nn

import graphscale
from tests.zoo import export_module

from .rescaled import assert_close, assert_weights, images, run_onnxruntime, shrink


class Table(nn.Module):
    """A position table, a LayerNorm over whole maps, an average over whole maps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 7, 2, 3)
        self.places = nn.Parameter(torch.randn(1, 8, 16, 16))
        self.norm = nn.LayerNorm([8, 16, 16])
        self.pool = nn.AvgPool2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.norm(self.enter(x) + self.places)).flatten(1)


def head(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 5)]


LAYERS = {
    "same": [nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, 5, padding="same")],
    "unequal": [nn.Conv2d(3, 8, 3, padding=1), *head(8 * 32 * 32)],
    "reflect": [
        nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    ],
    "dilated": [nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)],
    "pads": [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.ReflectionPad2d(1), *head(2592)],
    "adaptive": [nn.Conv2d(3, 8, 7, 2, 3), nn.AdaptiveAvgPool2d(16), *head(8 * 16 * 16)],
    "pools": [
        nn.Conv2d(3, 8, 5, 1, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.AvgPool2d(3, 2, 1),
        nn.LPPool2d(2, 2),
    ],
    "upsample": [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.UpsamplingNearest2d(size=(32, 32)),
    ],
    "transposed": [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ConvTranspose2d(8, 4, 5, 2, 2, 1),
    ],
    "table": [Table()],
    "one axis": [nn.Conv1d(3, 8, 7, 2, 3), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, 1, 1), *head(64)],
    "three axes": [nn.Conv3d(3, 4, 3, 2, 1), nn.AvgPool3d(2), nn.Conv3d(4, 4, 5, 1, 2)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    torch.manual_seed(0)
    target = nn.Sequential(*LAYERS[name]).eval()
    axes = {"one axis": 1, "three axes": 3}.get(name, 2)
    example = torch.randn(2, 3, *[32] * axes)
    shrunk = shrink(target, example)
    pretrain = graphscale.shrink(export_module(target, example, "dynamo"))
    assert_weights(shrunk, pretrain)
    x = images(shrunk, 3)
    assert_close(shrunk(x), run_onnxruntime(pretrain, x))
    torch.compiler.reset()
    compiled = torch.compile(shrunk, backend="eager", fullgraph=True)
    assert_close(compiled(x), shrunk(x))
    grown = graphscale.grow(shrunk)
    assert_weights(grown, graphscale.grow(pretrain))
    assert_close(shrink(grown, example)(x), shrunk(x))
    for layer in grown.modules():
        assert not layer._forward_pre_hooks
        assert not layer._forward_hooks
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown(example), target(example))
