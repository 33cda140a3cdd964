"""Derivatives that register_gradients builds, up to the third, against autograd of torch's own."""

import pytest
import torch
from torch.nn import functional

from graphscale.layers.fft_conv import fft_conv
from graphscale.layers.locally_connected import locally_connected
from graphscale.layers.temporal_conv import temporal_conv


def torch_locally_connected(x, weight):
    patches = x.unfold(2, weight.shape[4], 1).unfold(3, weight.shape[5], 1)
    return torch.einsum("nchwij,fhwcij->nfhw", patches, weight)


# The operator, the same in torch's operators, and the shapes of x, weight and bias.
CASES = {
    "without bias": (
        locally_connected,
        torch_locally_connected,
        [(2, 3, 4, 5), (2, 3, 4, 3, 2, 2)],
    ),
    "with bias": (
        lambda *tensors: temporal_conv(*tensors, stride=2),
        lambda x, weight, bias: functional.conv1d(x.mT, weight.mT, bias, 2).mT,
        [(2, 9, 3), (4, 3, 3), (4,)],
    ),
    "resolved attributes": (
        lambda *tensors: fft_conv(*tensors, auto_pad="SAME_UPPER"),
        lambda x, weight, bias: functional.conv2d(x, weight, bias, padding="same"),
        [(2, 3, 6, 5), (4, 3, 3, 3), (4,)],
    ),
    "bounds": (
        lambda *tensors: fft_conv(*tensors, minimum=-1.0, maximum=2.0),
        lambda x, weight, bias: functional.conv2d(x, weight, bias).clamp(-1, 2),
        [(2, 3, 6, 5), (4, 3, 3, 3), (4,)],
    ),
}


def tensors_of(shapes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]


@pytest.mark.parametrize("name", CASES)
def test_first_second_and_third_derivatives(name):
    operator, wanted, shapes = CASES[name]
    tensors = tensors_of(shapes)
    derivatives = []
    for function in (operator, wanted):
        value, found = function(*tensors).square().sum(), []
        for _ in range(3):
            gradients = torch.autograd.grad(value, tensors, create_graph=True)
            found += gradients
            value = sum(gradient.square().sum() for gradient in gradients)
        derivatives.append(found)
    for one, other in zip(*derivatives, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("needed", [0, 1, -1])
def test_a_gradient_to_one_tensor_alone(name, needed):
    operator, wanted, shapes = CASES[name]
    tensors = [each.detach() for each in tensors_of(shapes)]
    tensors[needed].requires_grad_()
    found = [
        torch.autograd.grad(function(*tensors).square().sum(), tensors[needed])[0]
        for function in (operator, wanted)
    ]
    torch.testing.assert_close(*found)
