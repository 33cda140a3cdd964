"""Pooling and normalisation over features, against torch's unfold, norms and LRN in float64."""

import onnx
import pytest
import torch
from numpy.testing import assert_array_equal

from graphscale import GraphScaleError
from graphscale.layers import CrossMapNormalization, FeatureLPPooling, Maxout, library
from graphscale.layers.cross_map_normalization import cross_map_normalization
from graphscale.layers.feature_pooling import feature_lp_pooling, maxout, maxout_grad

from .conftest import run

SHAPES = [(3, 12), (2, 16, 5), (2, 13, 4, 3)]
WINDOWS = [(2, 1), (3, 2), (4, 4), (12, 1), (1, 3)]


def windows(x, width, stride):
    return x.unfold(1, width, stride)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("width", "stride"), WINDOWS)
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 2.5])
def test_lp_pooling(shape, width, stride, power):
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    wanted = torch.linalg.vector_norm(windows(x, width, stride), power, dim=-1)
    torch.testing.assert_close(feature_lp_pooling(x, width, stride, power), wanted)
    assert torch.autograd.gradcheck(lambda t: feature_lp_pooling(t, width, stride, power), x)


def test_lp_pooling_has_no_gradient_at_zero():
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    for power in (0.5, 1.0, 2.0, 3.0):
        grad = torch.autograd.grad(feature_lp_pooling(x, 2, 1, power).sum(), x)[0]
        assert torch.equal(grad, torch.zeros_like(x))


def test_lp_pooling_equals_torch_for_positive_values():
    x = torch.rand(2, 12, 3, dtype=torch.float64)
    wanted = torch.nn.LPPool1d(3, 4, stride=2)(x.mT.reshape(6, 12)).reshape(2, 3, 5).mT
    torch.testing.assert_close(FeatureLPPooling(4, 2, 3)(x), wanted)


def test_without_batch():
    x = torch.randn(9, 4, 4)
    layer = FeatureLPPooling(3, 3, batch_mode=False)
    torch.testing.assert_close(layer(x), FeatureLPPooling(3, 3)(x[None])[0])


# Windows of each length that has loops of its own, and more of them than a vector has numbers.
@pytest.mark.parametrize("shape", [*SHAPES, (2, 150), (1, 14, 100), (1, 37, 2, 3)])
@pytest.mark.parametrize(("width", "stride"), [*WINDOWS, (2, 2), (8, 8), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_maxout(shape, width, stride, dtype):
    x = torch.randint(-9, 10, shape).to(dtype)
    start = torch.arange((shape[1] - width) // stride + 1) * stride
    seen = windows(x, width, stride)
    place = seen.argmax(-1, keepdim=True)  # the first of equals
    index = place[..., 0] + start.reshape(-1, *[1] * (len(shape) - 2))
    y = maxout(x, width, stride)
    assert torch.equal(y, seen.gather(-1, place)[..., 0])
    again, places = torch.empty_like(y), torch.empty(y.shape, dtype=torch.int64)
    attributes = library.attribute_array(("width", "stride"), (width, stride))
    library.run("Maxout", [x], [again, places], attributes)
    assert torch.equal(again, y)
    assert torch.equal(places, index)
    grad = torch.randint(-5, 6, y.shape).to(dtype)
    wanted = torch.zeros_like(x).scatter_add(1, index, grad)
    assert torch.equal(maxout_grad(grad, x, width, stride), wanted)


@pytest.mark.parametrize(("width", "stride"), WINDOWS)
def test_derivatives_of_maxout(width, stride):
    x = torch.randn(2, 13, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: maxout(t, width, stride), x)
    assert torch.autograd.gradgradcheck(lambda t: maxout(t, width, stride).square(), x)


def test_maxout_of_equals_and_of_nan():
    x = torch.tensor([[1.0, 1.0, 0.0, float("nan"), 5.0, float("nan")]])
    for width in (2, 3):
        y = maxout(x, width, width)
        assert y[0, -1].isnan()
        assert not y[0, 0].isnan()
    wanted = [[1, 0, 0, 1, 0, 0]]
    assert maxout_grad(torch.ones(1, 2), x, 3, 3).tolist() == wanted


def test_maxout_gives_the_index_where_a_model_asks(tmp_path):
    x = torch.randn(2, 9, 4)
    node = onnx.helper.make_node(
        "Maxout", ["x"], ["y", "index"], domain="graphscale", width=3, stride=2
    )
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "maxout",
        [value("x", onnx.TensorProto.FLOAT, [2, 9, 4])],
        [value("y", onnx.TensorProto.FLOAT, None), value("index", onnx.TensorProto.INT64, None)],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("graphscale", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    y, index = run(model.SerializeToString(), [x], library=True)
    seen = windows(x, 3, 2).max(-1)
    assert_array_equal(y, seen.values)
    assert_array_equal(index, seen.indices + torch.arange(4)[:, None] * 2)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1)])
@pytest.mark.parametrize(("size", "scale", "power"), [(3, 0.3, 0.75), (5, 1.0, 0.5), (1, 2.0, 1.0)])
def test_cross_map_normalization(shape, size, scale, power):
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    flat = x if x.dim() > 2 else x[..., None]
    wanted = torch.nn.functional.local_response_norm(flat, size, scale * size, power)
    got = cross_map_normalization(x, size, scale, power)
    torch.testing.assert_close(got, wanted.reshape(x.shape))
    assert torch.autograd.gradcheck(lambda t: cross_map_normalization(t, size, scale, power), x)


def test_empty_batch():
    x = torch.randn(0, 6, 2)
    assert FeatureLPPooling(2, 2)(x).shape == (0, 3, 2)
    assert Maxout(2)(x).shape == (0, 3, 2)
    assert CrossMapNormalization(3)(x).shape == (0, 6, 2)


def test_wrong_arguments():
    x = torch.randn(2, 6)
    with pytest.raises(GraphScaleError, match="x has 6 features, fewer than the width 7"):
        FeatureLPPooling(7)(x)
    with pytest.raises(GraphScaleError, match="power is"):
        FeatureLPPooling(2, 1, -1.0)(x)
    with pytest.raises(GraphScaleError, match="stride is 0"):
        Maxout(2, 0)(x)
    with pytest.raises(GraphScaleError, match="size is 4; give an odd whole number"):
        CrossMapNormalization(4)(x)
    with pytest.raises(GraphScaleError, match="at least 2"):
        CrossMapNormalization(3)(x[0])


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (FeatureLPPooling(3, 2), "FeatureLPPooling"),
        (FeatureLPPooling(2, 1, 3.5), "FeatureLPPooling"),
        (Maxout(3), "Maxout"),
        (CrossMapNormalization(5, 0.2), "CrossMapNormalization"),
    ],
)
def test_export(check_export, layer, operator):
    check_export(
        layer,
        torch.randn(2, 9, 4, 3),
        operator=operator,
        others=[(torch.randn(5, 9, 4, 3),)],
        dynamic_shapes={"x": {0: torch.export.Dim("N")}},
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_and_bodies(check_operator, shape):
    x = torch.randn(*shape)
    for power in (1.0, 2.0, 2.5):
        y = feature_lp_pooling(x, 3, 2, power)
        options = {"width": 3, "stride": 2, "power": power}
        check_operator("FeatureLPPooling", x, **options)
        check_operator("FeatureLPPoolingGrad", torch.randn_like(y), x, y, **options)
    for options in ({"width": 4, "stride": 3}, {"width": 3, "stride": 1}):
        y = maxout(x, **options)
        check_operator("Maxout", x, **options)
        check_operator("MaxoutGrad", torch.randn_like(y), x, **options)
    options = {"size": 3, "scale": 0.5, "power": 0.75}
    check_operator("CrossMapNormalization", x, **options)
    check_operator("CrossMapNormalizationGrad", torch.randn_like(x), x, **options)
