"""Every operator and layer under torch's transforms, against difference quotients in float64."""

import contextlib

import pytest
import torch
from torch.autograd import forward_ad

from graphscale import GraphScaleError
from graphscale.layers import HierarchicalSoftmax, LookupTable, OneBitDequantize, OneBitQuantize
from graphscale.layers.operator import OPERATORS

from .cases import every_layer, in_double


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64)


torch.manual_seed(0)
CLUSTER_START = torch.tensor([0, 2, 5, 7])
CLASS_ROW = torch.tensor([3, 0, 6, 1, 2, 5, 4])
INDICES = torch.tensor([[1, 2, 1], [4, 0, 2]])
TARGET = torch.tensor([2, -100, 6, 2])
SOFTMAX = (numbers(3, 4), numbers(3), numbers(7, 4), numbers(7))
CONV_ATTRIBUTES = {"dilations": [1, 2], "group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}
IMAGES, KERNELS, CONVOLVED = numbers(1, 2, 4, 5), numbers(2, 1, 3, 2), numbers(1, 2, 3, 4)
PATCHED, OWN_KERNELS, MAPS = numbers(1, 2, 3, 4), numbers(2, 2, 2, 2, 2, 2), numbers(1, 2, 2, 2)
FRAMES, TEMPORAL, OUTPUTS = numbers(1, 7, 2), numbers(2, 3, 2), numbers(1, 3, 2)
# The tensors and attributes of each operator.
CASES = {
    "FFTConv": ((IMAGES, KERNELS, numbers(2)), CONV_ATTRIBUTES),
    "FFTConvGradInput": ((CONVOLVED, KERNELS, IMAGES), CONV_ATTRIBUTES),
    "FFTConvGradWeight": ((CONVOLVED, IMAGES, KERNELS), CONV_ATTRIBUTES),
    "CrossMapNormalization": ((numbers(2, 6, 3),), {"size": 3, "scale": 0.5}),
    "CrossMapNormalizationGrad": ((numbers(2, 6, 3), numbers(2, 6, 3)), {"size": 3, "scale": 0.5}),
    "FeatureLPPooling": ((numbers(2, 7, 3),), {"width": 3, "stride": 2, "power": 3.0}),
    "FeatureLPPoolingGrad": (
        (numbers(2, 3, 3), numbers(2, 7, 3), numbers(2, 3, 3).exp()),
        {"width": 3, "stride": 2, "power": 3.0},
    ),
    "Maxout": ((numbers(2, 7, 3),), {"width": 3, "stride": 2}),
    "MaxoutGrad": ((numbers(2, 3, 3), numbers(2, 7, 3)), {"width": 3, "stride": 2}),
    "HierarchicalSoftmaxLoss": ((numbers(4, 4), TARGET, *SOFTMAX, CLASS_ROW, CLUSTER_START), {}),
    "HierarchicalSoftmaxLossGrad": (
        (numbers(4), numbers(4, 4), TARGET, *SOFTMAX, CLASS_ROW, CLUSTER_START),
        {},
    ),
    "HierarchicalSoftmaxLogProb": (
        (numbers(4, 4), *SOFTMAX, CLASS_ROW.argsort(), CLUSTER_START),
        {},
    ),
    "HierarchicalSoftmaxTopK": (
        (numbers(4, 4), *SOFTMAX, CLASS_ROW.argsort(), CLUSTER_START),
        {"k": 3},
    ),
    "TemporalKMaxPool": ((numbers(2, 8, 3),), {"k": 2, "k_dynamic": 0.4}),
    "LocallyConnected": ((PATCHED, OWN_KERNELS), {"strides": [1, 2]}),
    "LocallyConnectedGradInput": ((MAPS, OWN_KERNELS, PATCHED), {"strides": [1, 2]}),
    "LocallyConnectedGradWeight": ((MAPS, PATCHED, OWN_KERNELS), {"strides": [1, 2]}),
    "LookupTable": ((numbers(5, 3), INDICES), {"padding_idx": 2}),
    "LookupTableGrad": ((numbers(2, 3, 3), INDICES, numbers(5, 3)), {"padding_idx": 2}),
    "WeightedLookupTable": ((numbers(5, 3), INDICES, numbers(2, 3)), {"padding_idx": 2}),
    "WeightedLookupTableGrad": (
        (numbers(2, 3, 3), INDICES, numbers(2, 3), numbers(5, 3)),
        {"padding_idx": 2},
    ),
    "TemporalConv": ((FRAMES, TEMPORAL, numbers(2)), {"stride": 2}),
    "TemporalConvGradInput": ((OUTPUTS, TEMPORAL, FRAMES), {"stride": 2}),
    "TemporalConvGradWeight": ((OUTPUTS, FRAMES, TEMPORAL), {"stride": 2}),
}
NOT_DIFFERENTIABLE = {"OneBitQuantize", "OneBitDequantize"}
every_operator = pytest.mark.parametrize("name", CASES)


def function_of(name):
    """The operator as a function of its floating-point tensors to one vector, and those tensors."""
    tensors, attributes = CASES[name]

    def function(*floats):
        rest = iter(floats)
        given = [next(rest) if t.is_floating_point() else t for t in tensors]
        results = OPERATORS[name](*given, **attributes)
        results = [results] if isinstance(results, torch.Tensor) else results
        return torch.cat([y.flatten() for y in results if y.is_floating_point()])

    return function, tuple(t for t in tensors if t.is_floating_point())


def derivative(function, points, direction, step=1e-6):
    """The derivative along the direction, by a difference quotient."""
    ahead = function(*(x + step * v for x, v in zip(points, direction)))
    behind = function(*(x - step * v for x, v in zip(points, direction)))
    return (ahead - behind) / (2 * step)


def jvp(function, points, direction):
    return torch.func.jvp(function, points, direction)[1]


def jvp_without_gradients(function, points, direction):
    with torch.no_grad():
        return torch.func.jvp(function, points, direction)[1]


def linearize(function, points, direction):
    return torch.func.linearize(function, *points)[1](*direction)


def dual_numbers(function, points, direction, context=contextlib.nullcontext):
    with forward_ad.dual_level(), context():
        duals = [forward_ad.make_dual(x, v) for x, v in zip(points, direction)]
        return forward_ad.unpack_dual(function(*duals)).tangent


def dual_numbers_of_parameters(function, points, direction):
    """As in training, where the points need gradients, too."""
    points = [x.clone().requires_grad_() for x in points]
    return dual_numbers(function, points, direction).detach()


def dual_numbers_without_gradients(function, points, direction):
    return dual_numbers(function, points, direction, torch.no_grad)


def times(jacobians, direction):
    return sum(j.flatten(1) @ v.flatten() for j, v in zip(jacobians, direction))


def jacfwd(function, points, direction):
    return times(torch.func.jacfwd(function, tuple(range(len(points))))(*points), direction)


def jacrev(function, points, direction):
    return times(torch.func.jacrev(function, tuple(range(len(points))))(*points), direction)


def vjp(function, points, direction):
    y, pull = torch.func.vjp(function, *points)
    rows = [pull(row) for row in torch.eye(len(y), dtype=y.dtype)]
    return torch.stack([sum((g * v).sum() for g, v in zip(row, direction)) for row in rows])


FIRST = [
    jvp,
    jvp_without_gradients,
    linearize,
    dual_numbers,
    dual_numbers_of_parameters,
    dual_numbers_without_gradients,
    jacfwd,
    jacrev,
    vjp,
]


def test_every_operator_is_here():
    assert set(CASES) | NOT_DIFFERENTIABLE == set(OPERATORS)


@every_operator
@pytest.mark.parametrize("transform", FIRST)
def test_first_derivative_of_operators(name, transform):
    function, points = function_of(name)
    direction = tuple(torch.randn_like(x) for x in points)
    wanted = derivative(function, points, direction)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(transform(function, points, direction), wanted, rtol=1e-6, atol=1e-7)


@every_operator
@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (torch.func.jacfwd, torch.func.jacrev),  # torch.func.hessian
        (torch.func.jacfwd, torch.func.jacfwd),
        (torch.func.jacrev, torch.func.jacfwd),
        (torch.func.jacrev, torch.func.jacrev),
    ],
)
def test_second_derivative_of_operators(name, outer, inner):
    function, points = function_of(name)
    every = tuple(range(len(points)))

    def scalar(*tensors):
        return function(*tensors).square().sum()

    hessian = outer(inner(scalar, every), every)(*points)
    direction = tuple(torch.randn_like(x) for x in points)
    found = sum(
        v.flatten() @ hessian[i][j].reshape(v.numel(), u.numel()) @ u.flatten()
        for i, v in enumerate(direction)
        for j, u in enumerate(direction)
    )

    def slope(*tensors):
        return derivative(scalar, tensors, direction, 1e-4)

    wanted = derivative(slope, points, direction, 1e-4)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def stacked(name, count=3):
    """The operator, and ``count`` variants of each of its floating-point tensors, stacked."""
    function, points = function_of(name)
    return function, tuple(torch.stack([x + 0.1 * torch.randn_like(x)] * count) for x in points)


@every_operator
def test_vmap_of_operators(name):
    function, points = stacked(name)
    wanted = torch.stack([function(*each) for each in zip(*points)])
    torch.testing.assert_close(torch.func.vmap(function)(*points), wanted)
    for i, first in enumerate(points):  # one batched tensor, the others shared
        if i == 0 or wanted.shape[1]:
            shared = [x[0] for x in points]
            dims = tuple(0 if j == i else None for j in range(len(points)))
            given = [first if j == i else x for j, x in enumerate(shared)]
            each = [[x if j == i else y for j, y in enumerate(shared)] for x in first]
            torch.testing.assert_close(
                torch.func.vmap(function, dims)(*given), torch.stack([function(*e) for e in each])
            )


@every_operator
def test_gradients_per_sample_of_operators(name):
    function, points = stacked(name)
    every = tuple(range(len(points)))
    direction = tuple(torch.randn_like(x) for x in points)

    def scalar(*tensors):
        return function(*tensors).square().sum()

    gradients = torch.func.vmap(torch.func.grad(scalar, every))(*points)
    for sample in range(3):
        at = tuple(x[sample] for x in points)
        along = tuple(v[sample] for v in direction)
        found = sum((g[sample] * v).sum() for g, v in zip(gradients, along))
        torch.testing.assert_close(found, derivative(scalar, at, along), rtol=1e-6, atol=1e-6)


@every_layer
@pytest.mark.parametrize("transform", FIRST)
def test_first_derivative_of_layers(case, transform):
    layer, tensors = in_double(case)
    points = tuple(tensor.detach() for tensor in tensors)
    direction = tuple(torch.randn_like(x) for x in points)

    def function(*tensors):
        return layer(*tensors).flatten()

    wanted = derivative(function, points, direction)
    torch.testing.assert_close(transform(function, points, direction), wanted, rtol=1e-6, atol=1e-7)


@every_layer
def test_gradients_per_sample_of_layers(case):
    names = [name for name, _ in case.layer.named_parameters()]
    parameters = {name: p.detach().double() for name, p in case.layer.named_parameters()}
    inputs = tuple(x.double() if x.is_floating_point() else x for x in case.inputs)

    def loss(parameters, *sample):
        batch = tuple(x[None] for x in sample)
        return torch.func.functional_call(case.layer, parameters, batch).square().sum()

    dims = (None, *(0 for _ in inputs))
    gradients = torch.func.vmap(torch.func.grad(loss), dims)(parameters, *inputs)
    for sample, each in enumerate(zip(*inputs)):
        direction = tuple(torch.randn_like(parameters[name]) for name in names)

        def at(*tensors, each=each):
            return loss(dict(zip(names, tensors)), *each)

        if names:
            wanted = derivative(at, tuple(parameters.values()), direction)
            found = sum((gradients[n][sample] * v).sum() for n, v in zip(names, direction))
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("sparse", "dense", "inputs"),
    [
        (LookupTable(7, 3, sparse=True), LookupTable(7, 3), (torch.tensor([[1, 2, 2]]),)),
        (LookupTable(7, 3, 2, sparse=True), LookupTable(7, 3, 2), (torch.tensor([[1, 2, 2]]),)),
        (
            HierarchicalSoftmax(3, 7, sparse=True),
            HierarchicalSoftmax(3, 7),
            (torch.randn(4, 3), torch.tensor([1, 2, 2, 6])),
        ),
    ],
)
def test_layers_with_sparse_gradients_give_dense_ones(sparse, dense, inputs):
    dense.load_state_dict(sparse.state_dict())

    def loss(parameters, layer):
        return torch.func.functional_call(layer, parameters, inputs).square().sum()

    parameters = dict(dense.named_parameters())
    wanted = torch.func.grad(loss)(parameters, dense)
    for name, found in torch.func.grad(loss)(parameters, sparse).items():
        torch.testing.assert_close(found, wanted[name])


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (OneBitQuantize(), (torch.randn(2, 40),)),
        (OneBitDequantize(40), (*OneBitQuantize()(torch.randn(2, 40)),)),
    ],
    ids=["OneBitQuantize", "OneBitDequantize"],
)
def test_operators_without_derivative_refuse_transforms_by_name(layer, inputs, request):
    operator = request.node.callspec.id
    with pytest.raises(GraphScaleError, match=operator):
        torch.func.vmap(layer)(*(x[None] for x in inputs))
    tangents = tuple(x.float() for x in inputs if x.is_floating_point())
    with pytest.raises(GraphScaleError, match=operator):
        torch.func.jvp(lambda *floats: layer(*inputs[: -len(floats)], *floats), tangents, tangents)
