"""Layers under torch.autocast have the types of torch's layers, and values near float32's."""

import copy

import onnx
import pytest
import torch
from torch import nn

import graphscale
from graphscale.layers import (
    CrossMapNormalization,
    FeatureLPPooling,
    FFTConv1d,
    FFTConv2d,
    HierarchicalSoftmax,
    LocallyConnected,
    LookupTable,
    Maxout,
    TemporalConv,
    TemporalKMaxPool,
    WeightedLookupTable,
)

TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
CONVOLUTION, SEQUENCE = torch.Size([2, 8, 9, 9]), torch.Size([2, 9, 8])
LAYERS = {
    # These compute in autocast's type, as torch's convolutions do.
    "FFTConv1d": (FFTConv1d(9, 8, 5), SEQUENCE, True),
    "FFTConv2d": (FFTConv2d(8, 8, 5, padding=2), CONVOLUTION, True),
    "TemporalConv": (TemporalConv(8, 8, 3), SEQUENCE, True),
    "LocallyConnected": (LocallyConnected(8, 4, (9, 9), 3), CONVOLUTION, True),
    # These compute in the type of their input.
    "FeatureLPPooling": (FeatureLPPooling(2, 2), CONVOLUTION, True),
    "Maxout": (Maxout(2), CONVOLUTION, True),
    "CrossMapNormalization": (CrossMapNormalization(3), CONVOLUTION, True),
    "TemporalKMaxPool": (TemporalKMaxPool(3), SEQUENCE, True),
}


class Behind(nn.Module):
    """A layer behind one whose output is float16 or bfloat16 under autocast."""

    def __init__(self, layer, shape):
        super().__init__()
        first = nn.Linear(8, 8) if len(shape) == 3 else nn.Conv2d(8, 8, 1)
        self.first, self.layer = first, layer

    def forward(self, x, *rest):
        return self.layer(self.first(x), *rest)


def train(module, inputs, dtype=None):
    """The output and its gradients, under autocast where a type is given."""
    module.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        y = module(*inputs)
        loss = y.float().square().mean()
    loss.backward()
    return y, [parameter.grad for parameter in module.parameters()]


@TYPES
@pytest.mark.parametrize("name", LAYERS)
def test_behind_another_layer(name, dtype):
    layer, shape, lower = LAYERS[name]
    torch.manual_seed(0)
    module, x = Behind(copy.deepcopy(layer), shape), torch.randn(shape)
    wanted, wanted_grads = train(module, (x,))
    found, grads = train(module, (x,), dtype)
    assert found.dtype == (dtype if lower else torch.float32)
    tolerance = 32 * torch.finfo(dtype).eps
    assert (found.float() - wanted).norm() <= tolerance * wanted.norm()
    for one, other in zip(grads, wanted_grads, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= tolerance * other.norm()


@TYPES
def test_hierarchical_softmax_computes_in_float32(dtype):
    torch.manual_seed(0)
    module = Behind(HierarchicalSoftmax(8, 30), SEQUENCE)
    x, target = torch.randn(5, 8), torch.randint(0, 30, (5,))
    wanted, _ = train(module, (x, target))
    found, grads = train(module, (x, target), dtype)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)
    assert all(grad.dtype == torch.float32 for grad in grads)
    with torch.autocast("cpu", dtype):
        hidden = module.first(x)
        assert module.layer.log_prob(hidden).dtype == torch.float32
        assert module.layer.top_k(hidden, 3)[0].dtype == torch.float32
        sparse = HierarchicalSoftmax(8, 30, sparse=True)
        sparse(hidden, target).backward()
    assert sparse.weight.grad.is_sparse


@TYPES
def test_first_in_a_network(dtype):
    x = torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", dtype):
        assert FFTConv2d(8, 8, 5)(x).dtype == nn.Conv2d(8, 8, 5)(x).dtype == dtype


@TYPES
def test_double_stays_double(dtype):
    layer, x = FFTConv2d(8, 8, 5).double(), torch.randn(2, 8, 9, 9, dtype=torch.float64)
    with torch.autocast("cpu", dtype):
        assert layer(x).dtype == torch.float64


@TYPES
def test_row_weights_may_have_another_type_than_the_table(dtype):
    table, indices = WeightedLookupTable(7, 3), torch.tensor([[1, 2]])
    row_weights = torch.rand(1, 2).to(dtype)
    with torch.autocast("cpu", dtype):
        y = table(indices, row_weights)
        assert LookupTable(7, 3)(indices).dtype == torch.float32
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, table(indices, row_weights.float()))


@TYPES
def test_gradients_of_gradients(dtype):
    torch.manual_seed(0)
    module, x = Behind(FFTConv2d(8, 8, 3), CONVOLUTION), torch.randn(CONVOLUTION)
    x.requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype, enabled=enabled):
            y = module(x)
            (first,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
            results.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert (results[1] - results[0]).norm() <= 32 * torch.finfo(dtype).eps * results[0].norm()


@TYPES
def test_loaded_models(dtype, tmp_path):
    torch.manual_seed(0)
    module, x = Behind(FFTConv2d(8, 8, 5), CONVOLUTION), torch.randn(CONVOLUTION)
    graphscale.export(module.eval(), (x,), tmp_path / "model.onnx")
    assert "FFTConv" in [n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node]
    loaded = graphscale.load(tmp_path / "model.onnx")
    with torch.autocast("cpu", dtype):
        y = loaded(x)
        assert y.dtype == dtype
        y.float().square().mean().backward()
    wanted = module(x)
    assert (y.float() - wanted).norm() <= 32 * torch.finfo(dtype).eps * wanted.norm()


@TYPES
def test_compiled(dtype):
    module, x = Behind(FFTConv2d(8, 8, 5), CONVOLUTION), torch.randn(CONVOLUTION)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype):
        found, wanted = compiled(x), module(x)
    assert found.dtype == wanted.dtype == dtype
    torch.testing.assert_close(found, wanted)
