"""TemporalConv against torch's conv1d in float64."""

import pytest
import torch
from torch.nn import functional

from graphscale import GraphScaleError
from graphscale.layers import TemporalConv
from graphscale.layers.temporal_conv import temporal_conv

SIZES = [(3, 13, 5, 7, 4, 2), (1, 4, 1, 1, 4, 1), (2, 9, 3, 2, 1, 3), (2, 11, 2, 3, 3, 5)]


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("size", SIZES)
def test_equals_conv1d(size):
    batch, frames, inner, outer, kernel, stride = size
    x, weight, bias = random(batch, frames, inner), random(outer, kernel, inner), random(outer)
    wanted = functional.conv1d(x.mT, weight.mT, bias, stride).mT
    torch.testing.assert_close(temporal_conv(x, weight, bias, stride), wanted)
    assert torch.autograd.gradcheck(lambda *a: temporal_conv(*a, stride), (x, weight, bias))


def test_large_sizes_in_every_type():
    x, weight, bias = random(3, 150, 70), random(130, 9, 70), random(130)
    wanted = functional.conv1d(x.mT, weight.mT, bias, 2).mT
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)]:
        got = temporal_conv(x.to(dtype), weight.to(dtype), bias.to(dtype), 2)
        assert got.dtype == dtype
        error = (got.double() - wanted).norm() / wanted.norm()
        assert error < tolerance


def test_threads_do_not_change_the_result():
    x, weight = random(2, 400, 64), random(96, 5, 64)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            y = temporal_conv(x, weight)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, weight])])
    finally:
        torch.set_num_threads(before)
    for one, four in zip(*results):
        torch.testing.assert_close(one, four)


def test_conv1d_state_dict_loads():
    layer, relative = TemporalConv(6, 8, 3, stride=2), torch.nn.Conv1d(6, 8, 3, stride=2)
    layer.load_state_dict(relative.state_dict())
    x = torch.randn(2, 10, 6)
    torch.testing.assert_close(layer(x), relative(x.mT).mT)
    layer.features_first = True
    torch.testing.assert_close(layer(x.mT), relative(x.mT))
    torch.testing.assert_close(layer(x[0].mT), relative(x[0].mT))


def test_non_contiguous_and_misaligned_input():
    weight = random(4, 3, 5)
    x = random(2 * 12 * 10 + 1).detach()[1:].view(2, 12, 10)[:, :, ::2]
    torch.testing.assert_close(temporal_conv(x, weight), functional.conv1d(x.mT, weight.mT).mT)


def test_empty_batch():
    assert temporal_conv(random(0, 8, 3), random(4, 2, 3), random(4)).shape == (0, 7, 4)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((2, 3, 5), (4, 4, 5), (4,), "x has 3 frames"),
        ((2, 9, 5), (4, 4, 6), (4,), "features of x"),
        ((2, 9, 5), (4, 4, 5), (3,), "lengths of bias and weight"),
        ((9, 5), (4, 4, 5), (4,), "'x' has 2 dimensions"),
    ],
)
def test_wrong_shapes(x, weight, bias, message):
    with pytest.raises(GraphScaleError, match=f"TemporalConv: .*{message}"):
        temporal_conv(random(*x), random(*weight), random(*bias))


def test_wrong_types_and_attributes():
    with pytest.raises(GraphScaleError, match="'weight' is float32; it must be float64"):
        temporal_conv(random(1, 4, 2), random(1, 2, 2, dtype=torch.float32))
    with pytest.raises(GraphScaleError, match="stride is 0"):
        temporal_conv(random(1, 4, 2), random(1, 2, 2), None, 0)
    with pytest.raises(GraphScaleError, match="kernel_size is 0"):
        TemporalConv(2, 2, 0)


def test_opcheck():
    x, weight, bias = random(2, 9, 3), random(4, 2, 3), random(4)
    torch.library.opcheck(torch.ops.graphscale.temporal_conv.default, (x, weight, bias, 2))


@pytest.mark.parametrize("bias", [True, False])
def test_export(check_export, bias):
    dynamic = {"x": {0: torch.export.Dim("N"), 1: torch.export.Dim("T", min=4)}}
    check_export(
        TemporalConv(5, 7, 4, 2, bias=bias),
        torch.randn(3, 13, 5),
        operator="TemporalConv",
        others=[(torch.randn(1, 4, 5),), (torch.randn(2, 31, 5),)],
        dynamic_shapes=dynamic,
    )


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_operators_and_bodies(check_operator, stride):
    x, weight = torch.randn(3, 13, 5), torch.randn(7, 4, 5)
    grad = torch.randn(3, 9 // stride + 1, 7)
    check_operator("TemporalConv", x, weight, torch.randn(7), stride=stride)
    check_operator("TemporalConvGradInput", grad, weight, x, stride=stride)
    check_operator("TemporalConvGradWeight", grad, x, weight, stride=stride)
