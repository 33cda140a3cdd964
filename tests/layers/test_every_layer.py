"""Tests that every layer must pass: derivatives, torch.compile, export, types, odd inputs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import graphscale
from graphscale.layers import (
    CrossMapNormalization,
    FeatureLPPooling,
    FFTConv1d,
    FFTConv2d,
    GroupKMaxPool,
    HierarchicalSoftmax,
    LocallyConnected,
    LookupTable,
    Maxout,
    TemporalConv,
    TemporalKMaxPool,
    WeightedLookupTable,
)

from .cases import every_layer, in_double
from .conftest import run


@every_layer
def test_gradient_and_gradient_of_gradient(case):
    function, tensors = in_double(case)
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 1.5])
@pytest.mark.parametrize("stride", [1, 3])
def test_second_derivative_of_lp_pooling(power, stride):
    x = torch.randn(2, 7, 2, dtype=torch.float64)
    x = torch.where(x.abs() < 0.1, 0.5, x).requires_grad_()
    assert torch.autograd.gradgradcheck(FeatureLPPooling(3, stride, power), x)


def test_second_derivative_of_lp_pooling_of_zeros():
    x = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(FeatureLPPooling(2)(x).sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert torch.equal(second, torch.zeros_like(x))


@every_layer
def test_compiles_as_one_graph(case):
    compiled = torch.compile(case.layer, fullgraph=True, backend="aot_eager")
    parameters = list(case.layer.parameters())
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in case.inputs]
    wanted_of = [*parameters, *(x for x in inputs if x.requires_grad)]
    for got, wanted in zip(
        *(
            [y := layer(*inputs), *torch.autograd.grad(y.square().sum(), wanted_of)]
            for layer in (compiled, case.layer)
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


@every_layer
def test_torch_export_with_any_batch(case):
    shapes = tuple({0: torch.export.Dim("N", min=1)} for _ in case.inputs)
    program = torch.export.export(case.layer, case.inputs, dynamic_shapes=shapes)
    larger = tuple(torch.cat([x, x, x]) for x in case.inputs)
    torch.testing.assert_close(program.module()(*larger), case.layer(*larger))


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_types(case, dtype):
    small = [x.to(dtype) if x.is_floating_point() else x for x in case.inputs]
    wide = [x.double() if x.is_floating_point() else x for x in small]
    names = dict(case.layer.named_parameters())
    half = {name: p.detach().to(dtype).requires_grad_() for name, p in names.items()}
    double = {name: p.detach().double().requires_grad_() for name, p in half.items()}
    got = torch.func.functional_call(case.layer, half, tuple(small))
    wanted = torch.func.functional_call(case.layer, double, tuple(wide))
    assert got.dtype == dtype
    # The result is rounded once, and so may be the output of a first step.
    tolerance = 4 * torch.finfo(dtype).eps
    assert (got.double() - wanted).norm() <= tolerance * wanted.norm()
    if names:
        grads = torch.autograd.grad(got.sum(), list(half.values()))
        for one, other in zip(grads, torch.autograd.grad(wanted.sum(), list(double.values()))):
            assert one.dtype == dtype
            assert (one.double() - other).norm() <= tolerance * other.norm()


@every_layer
def test_empty_batch_and_its_gradient(case):
    empty = [x[:0].clone() for x in case.inputs]
    y = case.layer(*(x.requires_grad_() if x.is_floating_point() else x for x in empty))
    assert y.shape == (0, *case.layer(*case.inputs).shape[1:])
    for parameter in case.layer.parameters():
        (grad,) = torch.autograd.grad(y.sum(), parameter, retain_graph=True)
        assert torch.equal(grad, torch.zeros_like(parameter))


def strided(x):
    """The same numbers in every second place of memory."""
    return torch.stack([x, x], -1)[..., 0]


def shifted(x):
    """The same numbers in memory that starts one element behind an aligned address."""
    memory = torch.empty(x.numel() + 1, dtype=x.dtype)[1:]
    return memory.copy_(x.flatten()).view(x.shape)


@every_layer
@pytest.mark.parametrize("arrange", [strided, shifted])
def test_non_contiguous_and_misaligned_inputs(case, arrange):
    wanted = case.layer(*case.inputs)
    arranged = [arrange(x) for x in case.inputs]
    parameters = {name: arrange(p.detach()) for name, p in case.layer.named_parameters()}
    got = torch.func.functional_call(case.layer, parameters, tuple(arranged))
    torch.testing.assert_close(got, wanted)
    grad = torch.randn_like(wanted)
    for x in arranged:
        if x.is_floating_point():
            again = arrange(x.detach().contiguous()).requires_grad_()
            plain = x.detach().contiguous().requires_grad_()
            results = [
                torch.autograd.grad(
                    case.layer(*(each if a is x else a for a in arranged)), each, arrange(grad)
                )[0]
                for each in (again, plain)
            ]
            torch.testing.assert_close(*results)


class Everything(nn.Module):
    """Two small networks that contain every layer, side by side."""

    def __init__(self):
        super().__init__()
        self.images = nn.Sequential(
            FFTConv2d(2, 8, 5, padding=2),
            FeatureLPPooling(2, 2, 3.0),
            CrossMapNormalization(3, 0.1),
            LocallyConnected(4, 8, (8, 8), 3, 2),
            Maxout(2),
            nn.Flatten(),
            GroupKMaxPool(4, 2),
        )
        self.table = LookupTable(20, 6, padding_idx=0, max_norm=2.0)
        self.weighted = WeightedLookupTable(20, 6)
        self.words = nn.Sequential(
            FFTConv1d(9, 9, 3, padding=1), TemporalConv(6, 10, 3), TemporalKMaxPool(2), nn.Flatten()
        )

    def forward(self, image, words, weights):
        rows = self.table(words) + self.weighted(words, weights)
        return torch.cat([self.images(image), self.words(rows)], 1)


def test_a_model_of_every_layer_is_exported(tmp_path):
    torch.manual_seed(0)
    model = Everything().eval()
    example = (torch.randn(2, 2, 8, 8), torch.randint(0, 20, (2, 9)), torch.rand(2, 9))
    path = tmp_path / "model.onnx"
    graphscale.export(model, example, path, dynamic_shapes=[{0: torch.export.Dim("N")}] * 3)
    for batch in (1, 5):
        inputs = (
            torch.randn(batch, 2, 8, 8),
            torch.randint(0, 20, (batch, 9)),
            torch.rand(batch, 9),
        )
        wanted = model(*inputs).detach().numpy()
        for library in (True, False):
            (got,) = run(path, inputs, library)
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


WITH_PARAMETERS = {
    "FFTConv1d": (FFTConv1d, (3, 4, 5)),
    "FFTConv2d": (FFTConv2d, (3, 4, 5)),
    "TemporalConv": (TemporalConv, (3, 4, 3)),
    "LookupTable": (LookupTable, (7, 3)),
    "WeightedLookupTable": (WeightedLookupTable, (7, 3)),
    "HierarchicalSoftmax": (HierarchicalSoftmax, (3, 7)),
    "LocallyConnected": (LocallyConnected, (2, 3, (5, 4), 2)),
}


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_device_and_type_of_constructors(name):
    make, arguments = WITH_PARAMETERS[name]
    layer = make(*arguments, device="meta", dtype=torch.float64)
    for parameter in layer.parameters():
        assert parameter.device.type == "meta"
        assert parameter.dtype == torch.float64
    with torch.device("meta"):
        assert all(value.is_meta for value in make(*arguments).state_dict().values())
    filled = layer.to_empty(device="cpu")
    filled.load_state_dict(make(*arguments, dtype=torch.float64).state_dict())
    skipped = nn.utils.skip_init(make, *arguments)
    assert list(skipped.state_dict()) == list(filled.state_dict())


@every_layer
def test_meta_tensors(case):
    wanted = case.layer(*case.inputs)
    with torch.device("meta"):
        on_meta = copy.deepcopy(case.layer).to("meta")
        y = on_meta(*(x.to("meta") for x in case.inputs))
    assert y.is_meta
    assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
