"""Layers that pad their own input by TensorFlow's formula, which is written out here once more."""

import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale.training import GrowthStages


def same(x, kernel, stride, value=0.0):
    pads = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride)):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class SameConv(nn.Conv2d):
    def forward(self, x):
        x = same(x, self.kernel_size, self.stride)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SameMaxPool(nn.MaxPool2d):
    def forward(self, x):
        size, stride = (self.kernel_size,) * 2, (self.stride,) * 2
        return F.max_pool2d(same(x, size, stride, -math.inf), self.kernel_size, self.stride)


class StandardisedSameConv(nn.Conv2d):
    """Computes its weight and, while `same_pad` is set, its padding."""

    same_pad = True

    def forward(self, x):
        if self.same_pad:
            x = same(x, self.kernel_size, self.stride)
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def network(kind=SameConv) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        kind(3, 6, 7, 2),
        nn.ReLU(),
        SameMaxPool(3, 2),
        kind(6, 8, 5, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        kind(8, 8, 3, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize("kind", [SameConv, StandardisedSameConv])
@pytest.mark.parametrize("size", [64, 75])
def test_class_and_keys_are_kept(kind, size):
    target = network(kind)
    x = torch.randn(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = graphscale.shrink(target, x[:1])
    assert list(small.state_dict()) == list(target.state_dict())
    pretrain = small.graphscale_plan.image_size
    small = pickle.loads(pickle.dumps(small.eval()))
    # The sizes of the maps are those of the plan.
    sizes = {layer.name: layer.pretrain_size for layer in small.graphscale_plan.layers}
    found = []
    for layer in small:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *args: found.append(list(args[2].shape[2:])))
    small(torch.randn(2, 3, *pretrain))
    assert found == list(sizes.values())[:3]
    grown = graphscale.grow(small)
    assert [type(each) for each in grown] == [type(each) for each in target]
    assert [vars(each).get("padding") for each in grown] == [
        vars(each).get("padding") for each in target
    ]
    # The layers of the target, with the grown weights, compute the same.
    target.load_state_dict(grown.state_dict())
    torch.testing.assert_close(grown.eval()(x), target.eval()(x))
    # A 'SAME' layer pads by the size that it is given, also after growth.
    other = torch.randn(1, 3, size + 9, size + 9)
    torch.testing.assert_close(grown(other), target(other))


def test_growth_in_stages():
    """A layer that pads by numbers in one stage may pad itself in the next, as shrink makes it."""
    target = network()
    example = torch.randn(1, 3, 64, 64)
    options = [{"input_size": 44}, {"input_size": 48, "kernels": {7: 7, 5: 5, 3: 3}}]
    stages = GrowthStages(target, example, options)
    module = stages.module
    made = graphscale.shrink(target, example, **options[1]).eval()
    assert type(module[0]) is nn.Conv2d
    assert type(made[0]) is SameConv
    graphscale.grow_(module, to=stages.later[0])
    made.load_state_dict(module.state_dict())
    x = torch.randn(2, 3, 48, 48)
    assert torch.equal(module.eval()(x), made(x))
    graphscale.grow_(module)
    assert [type(each) for each in module] == [type(each) for each in target]


class Blurred(nn.Module):
    """A fixed kernel, as anti-aliased networks have it: a buffer outside the state dict."""

    def __init__(self, expand: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, padding=2)
        kernel = torch.tensor([1.0, 2.0, 1.0])
        blur = (kernel[:, None] * kernel / 16)[None, None]
        self.register_buffer("blur", blur if expand else blur.repeat(4, 1, 1, 1), persistent=False)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = F.pad(self.conv(x), (1, 1, 1, 1), mode="reflect")
        return self.last(F.conv2d(x, self.blur.expand(4, 1, 3, 3), stride=2, groups=4))


@pytest.mark.parametrize("expand", [False, True])
def test_a_fixed_blur_is_left_alone(expand):
    target = Blurred(expand)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = graphscale.shrink(target, torch.randn(1, 3, 40, 40))
    assert torch.equal(small.blur, target.blur)
    kernels = [layer.pretrain_kernel for layer in small.graphscale_plan.layers]
    assert kernels == [[3, 3], [3, 3], [2, 2]]
    reason = small.graphscale_plan.layers[1].left_unscaled
    assert reason == "nothing trains its kernel"
    # The blur itself, computed by another function than torch's convolution.
    x = torch.randn(1, 3, *small.graphscale_plan.image_size)
    torch.testing.assert_close(graphscale.grow(small).blur, target.blur)
    small.last = nn.Identity()
    padded = F.pad(small.conv(x), (1, 1, 1, 1), mode="reflect")
    patches = padded.unfold(2, 3, 2).unfold(3, 3, 2)
    expected = (patches * target.blur[0, 0]).sum((-1, -2))
    torch.testing.assert_close(small(x), expected)
