"""Layers that compute their kernels from parameters shrink and grow, and keep their class."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale.modules import why_outputs_differ
from graphscale.modules.module_state import copy_module

from .rescaled import assert_close, images, shrink

EXAMPLE = torch.randn(2, 3, 32, 32)


class StandardizedConv2d(nn.Conv2d):
    """Weight standardisation with a gain, as normaliser-free networks have it."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = (self.gain * self.scale).view(-1)
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=1e-6)
        weight = weight.reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def older(norm):
    def wrapped(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(layer)

    return wrapped


WEIGHT_NORMS = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "older weight_norm": older(nn.utils.weight_norm),
}
SPECTRAL_NORMS = {
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "older spectral_norm": older(nn.utils.spectral_norm),
}


def network(norm, convolution=nn.Conv2d) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        norm(convolution(3, 8, 5, padding=2)),
        nn.ReLU(),
        norm(nn.ConvTranspose2d(8, 6, 3, 2, 1, 1)),
        nn.MaxPool2d(4),
        norm(convolution(6, 4, 3, padding=1)),
        nn.Flatten(),
        norm(nn.Linear(4 * 16 * 16, 5)),
    )
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return module


def train(module: nn.Module) -> None:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        module(images(module, 4)).square().mean().backward()
        optimizer.step()


def check(target: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Same class and keys; growth moves every parameter; target and plan give the same."""
    shrunk = shrink(target, EXAMPLE)
    assert type(shrunk) is type(target)
    assert list(shrunk.state_dict()) == list(target.state_dict())
    assert shrunk[0].kernel_size == (3, 3)
    untrained = copy_module(graphscale.grow(shrunk))
    train(shrunk)
    grown = graphscale.grow(shrunk)
    assert {k: v.shape for k, v in grown.state_dict().items()} == {
        k: v.shape for k, v in target.state_dict().items()
    }
    before = dict(untrained.named_parameters())
    for name, parameter in grown.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} was left untrained"
    filled = graphscale.grow(shrunk, target=target).state_dict()
    for name, tensor in grown.state_dict().items():
        torch.testing.assert_close(filled[name], tensor)
    grown.eval()
    assert grown(EXAMPLE).shape == target.eval()(EXAMPLE).shape
    again = copy_module(grown)
    again.load_state_dict(target.state_dict())
    torch.testing.assert_close(again(EXAMPLE), target(EXAMPLE))
    return shrunk, grown


def kernels(module: nn.Module) -> list[torch.Tensor]:
    """The kernels that the convolutions compute."""
    with torch.no_grad():
        module(torch.zeros(1, 3, 32, 32) if module[0].kernel_size == (5, 5) else images(module))
    return [module[index].weight.detach() for index in (0, 2, 4)]


@pytest.mark.parametrize("norm", WEIGHT_NORMS)
def test_weight_norm_computes_the_resized_kernel(norm: str) -> None:
    """Eq. 5 on the kernels that the layers compute, by torch's own interpolation."""
    shrunk, grown = check(network(WEIGHT_NORMS[norm]))
    for small, large in zip(kernels(shrunk.eval()), kernels(grown)):
        size = large.shape[2:]
        expected = F.interpolate(small.double(), size, mode="bilinear")
        expected *= np.prod(small.shape[2:]) / np.prod(size)
        assert_close(large.double(), expected, 1e-5)


@pytest.mark.parametrize("norm", SPECTRAL_NORMS)
def test_spectral_norm_keeps_a_norm_of_one(norm: str) -> None:
    shrunk, grown = check(network(SPECTRAL_NORMS[norm]))
    for module in (shrunk.eval(), grown):
        for kernel, axis in zip(kernels(module), (0, 1, 0)):
            matrix = kernel.double().movedim(axis, 0).flatten(1)
            assert abs(torch.linalg.matrix_norm(matrix, 2) - 1) < 0.1


def test_weight_standardisation() -> None:
    torch.manual_seed(0)
    target = nn.Sequential(
        StandardizedConv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        StandardizedConv2d(8, 8, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    shrunk, grown = check(target)
    for index in (0, 2):
        small, large = shrunk[index].weight.detach(), grown[index].weight.detach()
        expected = F.interpolate(small.double(), large.shape[2:], mode="bilinear")
        expected *= np.prod(small.shape[2:]) / np.prod(large.shape[2:])
        assert_close(large.double(), expected, 1e-5)
        assert torch.equal(shrunk[index].gain, grown[index].gain)


def test_fresh_weights() -> None:
    target = network(nn.utils.parametrizations.weight_norm)
    fresh = [shrink(target, EXAMPLE, init="fresh", seed=seed) for seed in (0, 0, 1)]
    first = [module[0].weight.detach() for module in fresh]
    assert torch.equal(first[0], first[1])
    assert not torch.allclose(first[0], first[2])


def test_what_cannot_stay_in_its_class_never_grows_into_it_half_trained() -> None:
    """A pruned kernel is the product of two tensors of its shape."""
    from torch.nn.utils import prune

    target = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3))
    prune.l1_unstructured(target[0], "weight", 0.3)
    with pytest.warns(UserWarning, match="computes 1 weights"):
        shrunk = graphscale.shrink(target, EXAMPLE)
    train(shrunk)
    with torch.no_grad():  # growing gives an imported graph too
        assert graphscale.grow(shrunk)(EXAMPLE).shape == target(EXAMPLE).shape
    with pytest.raises(graphscale.GraphScaleError, match="without target"):
        graphscale.grow(shrunk, target=target)


class Experts(nn.Module):
    """Each image's kernel is a mixture of experts' kernels, as in EfficientNet-CC."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, 2, 2)
        self.routing = nn.Linear(4, 3)
        self.weight = nn.Parameter(torch.randn(3, 6 * 4 * 3 * 3) / 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        images, channels, height, width = x.shape
        mixture = torch.sigmoid(self.routing(x.mean((2, 3))))
        kernels = (mixture @ self.weight).view(images * 6, channels, 3, 3)
        x = F.conv2d(x.reshape(1, -1, height, width), kernels, padding=1, groups=images)
        return self.head(x.view(images, 6, height, width).mean((2, 3)))


def test_kernels_that_experts_mix_keep_their_size() -> None:
    target = Experts().eval()
    shrunk = shrink(target, EXAMPLE[:1], init="resize")
    assert type(shrunk) is Experts
    assert shrunk.stem.weight.shape == (4, 3, 3, 3)
    assert torch.equal(shrunk.weight, target.weight)
    x = images(shrunk)
    stem = F.conv2d(x, shrunk.stem.weight, shrunk.stem.bias, 2, shrunk.stem.padding).relu()
    for image, output in zip(stem, shrunk(x), strict=True):
        mixture = torch.sigmoid(shrunk.routing(image.mean((1, 2))))
        kernel = sum(part * each for part, each in zip(mixture, shrunk.weight.view(3, 6, 4, 3, 3)))
        mixed = F.conv2d(image[None], kernel, padding=1)
        assert_close(output, shrunk.head(mixed.mean((2, 3)))[0])
    grown = graphscale.grow(shrunk)
    assert type(grown) is Experts
    assert torch.equal(grown.weight, target.weight)
    assert grown(EXAMPLE).shape == (2, 5)


def test_random_weights_are_drawn_in_the_modules_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of a set, each process would compare other networks."""
    orders = []
    drawn = why_outputs_differ._drawn
    monkeypatch.setattr(
        why_outputs_differ,
        "_drawn",
        lambda shapes, *options: orders.append(list(shapes)) or drawn(shapes, *options),
    )
    normalized = nn.utils.parametrizations.weight_norm
    module = nn.Sequential(
        normalized(nn.Conv2d(3, 4, 5)), nn.ReLU(), normalized(nn.Conv2d(4, 4, 3)), nn.ReLU()
    )
    graphscale.shrink(module, torch.zeros(1, 3, 32, 32))
    names = list(module.state_dict())
    assert orders
    assert all(order == sorted(order, key=names.index) and len(order) == 6 for order in orders)
