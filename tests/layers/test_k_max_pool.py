"""k-max pooling against torch.topk."""

import math

import pytest
import torch

from graphscale import GraphScaleError
from graphscale.layers import GroupKMaxPool, TemporalKMaxPool
from graphscale.layers.k_max_pool import temporal_k_max_pool


def reference(x, k):
    index = x.topk(k, dim=1).indices.sort(dim=1).values
    return x.gather(1, index), index


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_keeps_the_largest_in_order(k, share):
    x = torch.randn(3, 10, 4, dtype=torch.float64, requires_grad=True)
    count = max(k, math.ceil(share * 10))
    values, index = temporal_k_max_pool(x, k, share)
    wanted_values, wanted_index = reference(x, count)
    assert torch.equal(index, wanted_index)
    assert torch.equal(values, wanted_values)
    assert torch.autograd.gradcheck(lambda t: temporal_k_max_pool(t, k, share)[0], x)


def test_a_tenth_of_thirty_frames_is_three():
    assert TemporalKMaxPool(1, 0.1)(torch.randn(1, 30, 2)).shape == (1, 3, 2)


def test_equals_and_nan():
    x = torch.tensor([2.0, 1.0, 2.0, 2.0, float("nan")])[None, :, None]
    assert temporal_k_max_pool(x, 3)[1].flatten().tolist() == [0, 2, 4]


def test_one_sequence_and_none():
    x = torch.randn(8, 3)
    torch.testing.assert_close(TemporalKMaxPool(2)(x), reference(x[None], 2)[0][0])
    assert TemporalKMaxPool(2)(torch.randn(0, 8, 3)).shape == (0, 2, 3)


def test_groups():
    x = torch.randn(5, 12, requires_grad=True)
    wanted = reference(x.reshape(-1, 4, 1), 2)[0].reshape(5, 6)
    torch.testing.assert_close(GroupKMaxPool(4, 2)(x), wanted)


def test_wrong_arguments():
    with pytest.raises(GraphScaleError, match="x has 4 frames; 5 of them cannot be kept"):
        TemporalKMaxPool(5)(torch.randn(2, 4, 3))
    with pytest.raises(GraphScaleError, match=r"k_dynamic is 1\.5"):
        TemporalKMaxPool(1, 1.5)(torch.randn(2, 4, 3))
    with pytest.raises(GraphScaleError, match="k is 3; give a whole number from 1 to 2"):
        GroupKMaxPool(2, 3)
    with pytest.raises(GraphScaleError, match="multiple of 3"):
        GroupKMaxPool(3, 1)(torch.randn(2, 4))
    with pytest.raises(GraphScaleError, match="multiple of 3"):
        GroupKMaxPool(3, 1)(torch.tensor(1.0))


def test_export(check_export):
    check_export(
        TemporalKMaxPool(2, 0.4),
        torch.randn(2, 9, 3),
        operator="TemporalKMaxPool",
        others=[(torch.randn(2, 30, 3),)],
        dynamic_shapes={"x": {1: torch.export.Dim("T", min=2)}},
    )


def test_operators_and_bodies(check_operator):
    for k, share in [(2, 0.0), (1, 0.3)]:
        check_operator("TemporalKMaxPool", torch.randn(3, 10, 4), k=k, k_dynamic=share)
