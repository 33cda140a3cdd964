"""LocallyConnected against unfold and einsum in float64."""

import pytest
import torch
from torch.nn import functional

from graphscale import GraphScaleError
from graphscale.layers import LocallyConnected
from graphscale.layers.locally_connected import locally_connected


def reference(x, weight, strides):
    patches = functional.unfold(x, weight.shape[4:], stride=strides)
    patches = patches.reshape(len(x), *weight.shape[3:], *weight.shape[1:3])
    return torch.einsum("ncijhw,fhwcij->nfhw", patches, weight)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((3, 2), (1, 1)), ((1, 4), (2, 3)), ((6, 7), (1, 1))]
)
def test_equals_unfold_and_sum(batch, kernel, strides):
    x = torch.randn(batch, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    layer = LocallyConnected(3, 4, (6, 7), kernel, strides).double()
    wanted = reference(x, layer.weight, strides) + layer.bias
    torch.testing.assert_close(layer(x), wanted)
    grad = torch.randn_like(wanted)
    for got, want in zip(
        torch.autograd.grad(layer(x), [x, *layer.parameters()], grad),
        torch.autograd.grad(wanted, [x, *layer.parameters()], grad),
    ):
        torch.testing.assert_close(got, want)


def test_gradcheck_and_tracing():
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: locally_connected(*a, [2, 1]), (x, weight))
    torch.library.opcheck(torch.ops.graphscale.locally_connected.default, (x, weight, [2, 1]))


def test_a_shared_kernel_is_a_convolution():
    x, kernel = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    shared = kernel[:, None, None].expand(4, 6, 6, 3, 3, 3)
    wanted = functional.conv2d(x, kernel)
    torch.testing.assert_close(locally_connected(x, shared), wanted, rtol=1e-4, atol=1e-4)
    assert locally_connected(x[:0], shared).shape == (0, 4, 6, 6)


def test_wrong_arguments():
    weight = torch.randn(4, 6, 6, 3, 3, 3)
    with pytest.raises(GraphScaleError, match="channels of x and weight"):
        locally_connected(torch.randn(1, 2, 8, 8), weight)
    with pytest.raises(GraphScaleError, match="output positions"):
        locally_connected(torch.randn(1, 3, 9, 8), weight)
    with pytest.raises(GraphScaleError, match="kernel is larger"):
        locally_connected(torch.randn(1, 3, 2, 8), weight)
    with pytest.raises(GraphScaleError, match="strides is"):
        locally_connected(torch.randn(1, 3, 8, 8), weight, [0, 1])
    with pytest.raises(GraphScaleError, match="does not fit an image of 4"):
        LocallyConnected(1, 1, (4, 4), 5)


def test_export(check_export):
    check_export(
        LocallyConnected(3, 4, (6, 7), (3, 2), (1, 2)),
        torch.randn(2, 3, 6, 7),
        operator="LocallyConnected",
        others=[(torch.randn(5, 3, 6, 7),)],
        dynamic_shapes={"x": {0: torch.export.Dim("N")}},
    )


def test_operators_and_bodies(check_operator):
    x, weight = torch.randn(2, 3, 6, 7), torch.randn(4, 2, 3, 3, 3, 2)
    grad = torch.randn(2, 4, 2, 3)
    check_operator("LocallyConnected", x, weight, strides=[2, 2])
    check_operator("LocallyConnectedGradInput", grad, weight, x, strides=[2, 2])
    check_operator("LocallyConnectedGradWeight", grad, x, weight, strides=[2, 2])
