"""matrix_convolutions: the results and formats of torch's own convolutions, and who computes."""

import copy

import pytest
import torch
from torch import nn

from graphscale.layers import matrix_conv, matrix_convolutions

# Channels, filters, kernel, stride, padding, size: filters outnumber the pixels of the output.
CASES = {
    "2×2 padded": (512, 512, 2, 1, 1, (2, 3)),
    "2×2": (512, 512, 2, 1, 0, (4, 3)),
    "3×3 strided": (300, 256, 3, 2, 1, (7, 5)),
    "3×1, padded unequally": (600, 512, (3, 1), (1, 2), (1, 0), (4, 6)),
    "1×1": (1024, 512, 1, 1, 0, (3, 3)),
}


def networks(case: str, format_: torch.memory_format) -> tuple[nn.Module, torch.Tensor]:
    """A layer and an input of a case, in a memory format."""
    channels, filters, kernel, stride, padding, size = CASES[case]
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, filters, kernel, stride, padding).to(memory_format=format_)
    x = torch.randn(3, channels, *size).contiguous(memory_format=format_).requires_grad_()
    return layer, x


@pytest.fixture
def products(monkeypatch) -> list[str]:
    """The names of the passes that were computed as a matrix product."""
    calls = []
    for name in ("forward", "grad_input", "grad_weight"):
        function = getattr(matrix_conv, name)

        def counted(*args, function=function, name=name):
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(matrix_conv, name, counted)
    return calls


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_equals_float64(case, format_, products):
    layer, x = networks(case, format_)
    exact, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    exact(exact_x).square().sum().backward()
    with matrix_convolutions():
        y = layer(x)
        y.square().sum().backward()
    assert products == ["forward", "grad_input", "grad_weight"]
    torch.testing.assert_close(y.double(), exact(exact_x), rtol=1e-5, atol=1e-5)
    for found, wanted in (
        (x.grad, exact_x.grad),
        (layer.weight.grad, exact.weight.grad),
        (layer.bias.grad, exact.bias.grad),
    ):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_results_have_torchs_memory_formats(format_):
    layer, x = networks("2×2", format_)
    wanted = layer(x)
    with matrix_convolutions():
        found = layer(x)
        found.sum().backward()
    assert found.stride() == wanted.stride()
    assert x.grad.stride() == x.stride()
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_each_pass_is_chosen_by_itself(products):
    # 400 pixels for 320 filters: only the gradient to the weight is a product.
    layer = nn.Conv2d(256, 320, 2, padding=1)
    x = torch.randn(4, 256, 9, 9, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    with matrix_convolutions():
        found = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    assert products == ["grad_weight"]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_second_derivatives(products):
    layer, x = networks("2×2", torch.channels_last)
    results = []
    for context in (matrix_convolutions(), torch.enable_grad()):
        with context:
            (to_x,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
            results.append(torch.autograd.grad(to_x.square().sum(), layer.weight)[0])
    assert products
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(512, 512, 2, groups=2),
        nn.Conv2d(512, 512, 2, dilation=2),
        nn.Conv2d(512, 512, 2, padding="same"),
        nn.Conv2d(512, 512, 2).double(),
        nn.Conv2d(512, 128, 2),
    ],
    ids=["groups", "dilations", "padding='same'", "float64", "filters that pixels outnumber"],
)
def test_torch_computes_the_rest(layer, products):
    x = torch.randn(16, 512, 5, 5, dtype=layer.weight.dtype)
    with matrix_convolutions():
        y = layer(x)
    assert not products
    assert torch.equal(y, layer(x))


def test_torch_computes_under_autocast_and_transforms(products):
    layer, x = networks("2×2", torch.contiguous_format)
    with matrix_convolutions():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        torch.func.vmap(lambda image: layer(image[None]))(x.detach())
        assert layer(x.detach()[0]).dim() == 3
    assert not products


def test_calls_of_the_function_with_names_and_numbers(products):
    layer, x = networks("2×2", torch.contiguous_format)
    wanted = nn.functional.conv2d(x, layer.weight, None, 1, 1)
    with matrix_convolutions():
        found = nn.functional.conv2d(bias=None, padding=1, weight=layer.weight, input=x)
    assert products == ["forward"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
