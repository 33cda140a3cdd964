"""CUDA kernels of the layers, emulated on the host, against float64 references."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphscale.layers import library
from graphscale.layers.operator import OPERATORS
from tests.gpu.cases import CASES

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Products go through tensor cores as sums of tf32 numbers; 16-bit results are rounded once.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def assert_close(actual, wanted, tolerance=None):
    tolerance = tolerance or TOLERANCE[actual.dtype]
    assert actual.shape == wanted.shape
    actual, wanted = actual.double(), wanted.double()
    error = (actual - wanted).abs().max() if actual.numel() else torch.tensor(0.0)
    scale = wanted.abs().max() if wanted.numel() else torch.tensor(1.0)
    assert error <= tolerance * scale


def gradient(function, x, grad):
    """The gradient of ``function`` to x in float64, for the gradient ``grad`` to its result."""
    x = x.double().requires_grad_()
    return torch.autograd.grad(function(x), x, grad.double())[0]


def test_every_operator_has_a_cuda_kernel_and_a_test_on_a_gpu():
    library = Path(__file__).parents[2] / "custom_ops" / "kernels" / "cuda" / "library.cu"
    kernel = r'^ *\{"(\w+)", all, \w+, \w+(?:, \w+)?\},$'
    registered = re.findall(kernel, library.read_text(), re.MULTILINE)
    assert sorted(registered) == sorted(OPERATORS)
    assert {name for name, _, _ in CASES} == set(OPERATORS)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 5, 8, 48])
def test_lookup_table(on_cuda, dtype, width):
    weight = random(20, width, dtype=dtype)
    indices = torch.tensor([[3, 0, 19], [7, 3, 7]])
    op = OPERATORS["LookupTable"]
    wanted = weight[indices].clone()
    torch.testing.assert_close(on_cuda(op, weight, indices), wanted, rtol=0, atol=0)
    wanted[indices == 7] = 0
    got = on_cuda(op, weight, indices, padding_idx=7)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [5, 8])
def test_an_index_outside_of_the_table_gives_not_a_number(on_cuda, dtype, width):
    weight = random(4, width, dtype=dtype)
    indices = torch.tensor([1, 4, -1, 2**40, -(2**40)])
    y = on_cuda(OPERATORS["LookupTable"], weight, indices)
    torch.testing.assert_close(y[0], weight[1], rtol=0, atol=0)
    assert y[1:].isnan().all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [0, 1, 64, 65, 700, 5000])
@pytest.mark.parametrize("rows", [1, 9, 4000])
def test_lookup_table_grad(on_cuda, dtype, count, rows):
    width = 3
    generator = torch.Generator().manual_seed(count)
    indices = torch.randint(rows, (count,), generator=generator)
    indices[: count // 2] = rows // 2  # one very frequent word
    indices[count // 3 : count // 3 + 2] = rows  # outside of the table: no gradient
    grad = random(count, width, dtype=dtype)
    factors = random(count, dtype=dtype, seed=1)
    weight = torch.empty(rows, width, dtype=dtype)
    padding = rows - 1 if rows > 1 else -1
    counted = (indices < rows) & (indices != padding)
    for name, extra in (("LookupTableGrad", []), ("WeightedLookupTableGrad", [factors])):
        terms = grad.double() * (extra[0].double()[:, None] if extra else 1)
        wanted = torch.zeros(rows, width, dtype=torch.float64)
        wanted.index_add_(0, indices[counted], terms[counted])
        got = on_cuda(OPERATORS[name], grad, indices, *extra, weight, padding_idx=padding)
        assert_close(got, wanted)


@pytest.mark.parametrize("dtype", FLOATS)
def test_weighted_lookup_table(on_cuda, dtype):
    weight, factors = random(9, 6, dtype=dtype), random(2, 4, dtype=dtype, seed=1)
    indices = torch.randint(9, (2, 4), generator=torch.Generator().manual_seed(0))
    got = on_cuda(OPERATORS["WeightedLookupTable"], weight, indices, factors)
    assert_close(got, factors.double()[..., None] * weight.double()[indices])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 2.5])
@pytest.mark.parametrize(("width", "stride"), [(2, 2), (3, 1), (2, 3), (7, 4)])
def test_feature_lp_pooling(on_cuda, dtype, power, width, stride):
    x = random(2, 7, 3, 2, dtype=dtype)
    x[0, 1:4] = 0

    def reference(x):
        windows = x.unfold(1, width, stride)
        return torch.linalg.vector_norm(windows, power, dim=-1)

    attributes = {"width": width, "stride": stride, "power": power}
    y = on_cuda(OPERATORS["FeatureLPPooling"], x, **attributes)
    assert_close(y, reference(x.double()))
    grad = random(*y.shape, dtype=dtype, seed=2)
    got = on_cuda(OPERATORS["FeatureLPPoolingGrad"], grad, x, y, **attributes)
    assert_close(got, gradient(reference, x, grad).nan_to_num(), 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("width", "stride"), [(3, 2), (2, 3), (7, 1)])
def test_maxout(on_cuda, dtype, width, stride):
    x = random(2, 7, 5, dtype=dtype)
    x[0, 2:5, 1] = 1.5
    x[1, 3, 0] = float("nan")
    windows = x.unfold(1, width, stride)
    place = windows.argmax(-1, keepdim=True)  # the first of equals
    wanted = windows.gather(-1, place)[..., 0]
    y = on_cuda(OPERATORS["Maxout"], x, width=width, stride=stride)
    torch.testing.assert_close(y, wanted, rtol=0, atol=0, equal_nan=True)
    attributes = library.attribute_array(("width", "stride"), (width, stride))
    again, index = torch.empty_like(y), torch.empty(y.shape, dtype=torch.int64)
    on_cuda(library.run, "Maxout", [x], [again, index], attributes)
    torch.testing.assert_close(again, y, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(index, place[..., 0] + stride * torch.arange(y.shape[1])[:, None])
    grad = random(*y.shape, dtype=dtype, seed=2)
    scattered = torch.zeros(x.shape, dtype=torch.float64).scatter_add(1, index, grad.double())
    got = on_cuda(OPERATORS["MaxoutGrad"], grad, x, width=width, stride=stride)
    assert_close(got, scattered)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 5, 15])
def test_cross_map_normalization(on_cuda, dtype, size):
    x = random(2, 6, 3, dtype=dtype)

    def reference(x):
        squares = functional.pad(x * x, (0, 0, size // 2, size // 2)).unfold(1, size, 1).sum(-1)
        return x * (1 + 0.3 * squares) ** -0.75

    attributes = {"size": size, "scale": 0.3, "power": 0.75}
    assert_close(
        on_cuda(OPERATORS["CrossMapNormalization"], x, **attributes), reference(x.double())
    )
    grad = random(*x.shape, dtype=dtype, seed=1)
    got = on_cuda(OPERATORS["CrossMapNormalizationGrad"], grad, x, **attributes)
    assert_close(got, gradient(reference, x, grad), 2 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("frames", "features", "k"), [(1, 1, 1), (9, 3, 4), (40, 33, 40), (100, 40, 7)]
)
def test_temporal_k_max_pool(on_cuda, dtype, frames, features, k):
    x = random(2, frames, features, dtype=dtype).mul(2).round()  # with many equal values
    x[0, 0, 0] = -0.0
    x[1, -1, 0] = float("nan") if frames > 1 else 0
    y, index = on_cuda(OPERATORS["TemporalKMaxPool"], x, k=k)
    values = np.where(np.isnan(x.double().numpy()), np.inf, x.double().numpy())
    order = np.sort(np.argsort(-values, axis=1, kind="stable")[:, :k], axis=1)
    np.testing.assert_array_equal(index.numpy(), order)
    torch.testing.assert_close(
        y, torch.gather(x, 1, torch.from_numpy(order)), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 32), (2, 33), (2, 700), (2, 0)])
def test_one_bit(on_cuda, dtype, rows, columns):
    gradient, residual = (
        random(rows, columns, dtype=dtype),
        random(rows, columns, dtype=dtype, seed=1),
    )
    if columns > 32:
        gradient[0] = gradient[0].abs() + 8  # no bit is unset
    words, scales, left = on_cuda(OPERATORS["OneBitQuantize"], gradient, residual)
    v = gradient.double() + residual.double()
    if dtype != torch.float64:
        v = (gradient.float() + residual.float()).double()
    bits = np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits[:, :columns], (v >= 0).numpy())
    assert not bits[:, columns:].any()
    for row in range(rows):
        for column, side in enumerate((v[row] >= 0, v[row] < 0)):
            mean = v[row][side].mean() if side.any() else torch.tensor(0.0)
            assert abs(scales[row, column] - mean) <= TOLERANCE[dtype] * max(1, abs(mean))
    back = on_cuda(OPERATORS["OneBitDequantize"], words, scales, columns=columns)
    chosen = torch.where(v >= 0, scales[:, :1].double(), scales[:, 1:].double())
    assert_close(back, chosen)
    assert_close(left, v - chosen)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("batch", "frames", "features", "outputs", "kernel", "stride"),
    [(1, 1, 1, 1, 1, 1), (2, 9, 5, 7, 3, 2), (2, 80, 20, 70, 4, 1), (3, 12, 2, 3, 2, 4)],
)
def test_temporal_conv(on_cuda, dtype, batch, frames, features, outputs, kernel, stride):
    x = random(batch, frames, features, dtype=dtype)
    weight = random(outputs, kernel, features, dtype=dtype, seed=1)
    bias = random(outputs, dtype=dtype, seed=2)

    def reference(x, weight, bias):
        y = functional.conv1d(x.transpose(1, 2), weight.transpose(1, 2), bias, stride)
        return y.transpose(1, 2)

    y = on_cuda(OPERATORS["TemporalConv"], x, weight, bias, stride=stride)
    assert_close(y, reference(x.double(), weight.double(), bias.double()))
    grad = random(*y.shape, dtype=dtype, seed=3)
    got = on_cuda(OPERATORS["TemporalConvGradInput"], grad, weight, x, stride=stride)
    assert_close(got, gradient(lambda x: reference(x, weight.double(), None), x, grad))
    got = on_cuda(OPERATORS["TemporalConvGradWeight"], grad, x, weight, stride=stride)
    assert_close(got, gradient(lambda w: reference(x.double(), w, None), weight, grad))


def test_tf32_is_less_accurate_and_only_on_request(on_cuda, monkeypatch):
    x, weight = random(1, 64, 32), random(64, 1, 32, seed=1)
    wanted = x.double() @ weight.double()[:, 0].T
    monkeypatch.setenv("GRAPHSCALE_TF32", "1")
    y = on_cuda(OPERATORS["TemporalConv"], x, weight, None)
    error = (y - wanted).norm() / wanted.norm()
    assert 1e-5 < error < 1e-3
