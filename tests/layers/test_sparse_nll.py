"""SparseNLLCriterion against cross_entropy with dense soft targets."""

import pytest
import torch
from torch.nn import functional

from graphscale import GraphScaleError
from graphscale.layers import SparseNLLCriterion


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_equals_dense_soft_targets(reduction):
    logits = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    index = torch.stack([torch.randperm(9)[:3] for _ in range(5)])
    probability = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    dense = torch.zeros(5, 9, dtype=torch.float64).scatter(1, index, probability)
    wanted = functional.cross_entropy(logits, dense, reduction=reduction)

    def loss(logits, probability):
        return SparseNLLCriterion(reduction)(logits.log_softmax(1), index, probability)

    torch.testing.assert_close(loss(logits, probability), wanted)
    assert torch.autograd.gradcheck(loss, (logits, probability))


def test_wrong_arguments():
    with pytest.raises(GraphScaleError, match=r"give \[N, C\]"):
        SparseNLLCriterion()(torch.randn(2, 4), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2))
    with pytest.raises(GraphScaleError, match="reduction is 'average'"):
        SparseNLLCriterion("average")
