"""CUDA kernels of the two-level softmax, emulated on the host, against float64 references."""

import pytest
import torch
from torch.nn import functional

from graphscale.layers import HierarchicalSoftmax
from graphscale.layers.operator import OPERATORS
from tests.custom_ops.test_cuda_emulation import FLOATS, TOLERANCE, assert_close, random

LOSS = OPERATORS["HierarchicalSoftmaxLoss"]
LOSS_GRAD = OPERATORS["HierarchicalSoftmaxLossGrad"]
LOG_PROB = OPERATORS["HierarchicalSoftmaxLogProb"]
TOP_K = OPERATORS["HierarchicalSoftmaxTopK"]


class Tree:
    """Classes in clusters of the given sizes, in random order, and random parameters."""

    def __init__(self, sizes, width, dtype):
        self.sizes, self.dtype = torch.tensor(sizes), dtype
        self.classes, generator = sum(sizes), torch.Generator().manual_seed(0)
        self.start = torch.cat([torch.zeros(1, dtype=torch.int64), self.sizes.cumsum(0)])
        self.row_class = torch.randperm(self.classes, generator=generator)
        self.class_row = self.row_class.argsort()
        self.row_cluster = torch.arange(len(sizes)).repeat_interleave(self.sizes)
        parameters = [
            random(len(sizes), width, seed=1) / width**0.5,
            random(len(sizes), seed=2),
            random(self.classes, width, seed=3) / width**0.5,
            random(self.classes, seed=4),
        ]
        self.parameters = [tensor.to(dtype) for tensor in parameters]

    def log_prob(self, x, cluster_weight, cluster_bias, weight, bias):
        """Log-probabilities [N, V] in the order of the rows of weight, by log_softmax."""
        outer = functional.log_softmax(x @ cluster_weight.T + cluster_bias, 1)
        logits = (x @ weight.T + bias).split(self.sizes.tolist(), 1)
        inner = [functional.log_softmax(part, 1) for part in logits]
        return outer[:, self.row_cluster] + torch.cat(inner, 1)

    def loss(self, target, ignored, *tensors):
        """The loss of each sample [N] in float64."""
        counted = target != ignored
        row = self.class_row[torch.where(counted, target, 0)]
        picked = self.log_prob(*tensors).gather(1, row[:, None])[:, 0]
        return torch.where(counted, -picked, torch.zeros_like(picked))


SHAPES = [
    ([1], 1, 1),
    ([3, 0, 4, 1], 5, 9),
    ([70, 1, 150], 20, 150),
    ([2] * 40, 70, 65),
    ([130], 8, 3),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("sizes", "width", "samples"), SHAPES)
def test_loss_and_gradients(on_cuda, dtype, sizes, width, samples):
    tree = Tree(sizes, width, dtype)
    check_loss_and_gradients(on_cuda, tree, random(samples, width, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_more_pieces_of_work_than_blocks(on_cuda, dtype):
    check_loss_and_gradients(on_cuda, Tree([1] * 421, 3, dtype), random(1300, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_16_bit_gradients_are_rounded_once(on_cuda, dtype):
    tree = Tree([100, 30], 3, dtype)
    x, grad = random(900, 3, dtype=dtype), torch.ones(900, dtype=dtype)
    target = torch.arange(900) % 3 * 50
    wide = [tensor.double().requires_grad_() for tensor in (x, *tree.parameters)]
    wanted = torch.autograd.grad(tree.loss(target, -7, *wide).sum(), wide)
    got = on_cuda(LOSS_GRAD, grad, x, target, *tree.parameters, tree.class_row, tree.start, None)
    for one, other in zip(got, wanted):
        assert (one.double() - other).norm() <= torch.finfo(dtype).eps * other.norm()


def check_loss_and_gradients(on_cuda, tree, x):
    """Every class is a target where there are enough samples, and a third have the same one."""
    samples, dtype = len(x), x.dtype
    target = torch.arange(samples) % tree.classes
    target[: samples // 3] = target[-1]
    target[1::3] = -7
    tables = [tree.class_row, tree.start]
    wide = [tensor.double().requires_grad_() for tensor in (x, *tree.parameters)]
    wanted = tree.loss(target, -7, *wide)
    loss = on_cuda(LOSS, x, target, *tree.parameters, *tables, ignore_index=-7)
    assert_close(loss, wanted)
    assert not loss[1::3].any()

    grad = random(samples, dtype=dtype, seed=5)
    given = [grad, x, target, *tree.parameters, *tables]
    gradients = on_cuda(LOSS_GRAD, *given, None, ignore_index=-7)
    exact = torch.autograd.grad(wanted, wide, grad.double())
    for got, want in zip(gradients, exact):
        assert_close(got, want, 4 * TOLERANCE[dtype])

    used = tree.row_cluster[tree.class_row[target[target != -7]]].unique()
    clusters = used.flip(0)  # in any order
    rows = torch.cat([torch.arange(*tree.start[k : k + 2].tolist()) for k in clusters])
    compact = on_cuda(LOSS_GRAD, *given, clusters, ignore_index=-7, rows=len(rows))
    for got, want in zip(compact[:3], gradients[:3]):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    for got, want in zip(compact[3:], gradients[3:]):
        torch.testing.assert_close(got, want[rows], rtol=0, atol=0)
        untouched = torch.ones(tree.classes, dtype=torch.bool)
        untouched[rows] = False
        assert not want[untouched].any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("sizes", "width", "samples"), [*SHAPES, ([4500, 300], 2, 2)])
def test_log_prob_and_top_k(on_cuda, dtype, sizes, width, samples):
    tree = Tree(sizes, width, dtype)
    x = random(min(samples, 20), width, dtype=dtype)
    tables = [tree.row_class, tree.start]
    wanted = tree.log_prob(*[tensor.double() for tensor in (x, *tree.parameters)])
    wanted = wanted[:, tree.class_row]
    assert_close(on_cuda(LOG_PROB, x, *tree.parameters, *tables), wanted)
    for k in sorted({1, min(7, tree.classes), tree.classes}):
        values, classes = on_cuda(TOP_K, x, *tree.parameters, *tables, k=k)
        assert_close(values, wanted.topk(k).values)
        assert_close(values, wanted.gather(1, classes))
        assert (values[:, 1:] <= values[:, :-1]).all()
        assert all(len(row.unique()) == k for row in classes)


def test_equally_likely_classes_are_in_their_order(on_cuda):
    tree = Tree([3, 5, 2], 4, torch.float32)
    for parameter in tree.parameters:
        parameter.zero_()
    _, classes = on_cuda(TOP_K, random(2, 4), *tree.parameters, tree.row_class, tree.start, k=2)
    best = tree.row_class[8:].sort().values  # the smallest cluster's classes are the likeliest
    assert (classes == best).all()


def test_a_target_that_is_no_class_has_no_loss_and_no_gradient(on_cuda):
    tree = Tree([3, 4], 5, torch.float32)
    x, grad = random(4, 5), torch.ones(4)
    target = torch.tensor([2, 7, -1, 2**40])
    tables = [tree.class_row, tree.start]
    loss = on_cuda(LOSS, x, target, *tree.parameters, *tables)
    assert loss[0].isfinite()
    assert loss[1:].isnan().all()
    got = on_cuda(LOSS_GRAD, grad, x, target, *tree.parameters, *tables, None)
    alone = on_cuda(LOSS_GRAD, grad[:1], x[:1], target[:1], *tree.parameters, *tables, None)
    assert torch.equal(got[0][:1], alone[0])
    assert not got[0][1:].any()
    for left, right in zip(got[1:], alone[1:]):
        torch.testing.assert_close(left, right)


def test_a_target_that_is_no_class_has_no_sparse_gradient(on_cuda):
    layer = HierarchicalSoftmax(5, 20, sparse=True, reduction="none")
    x, target = random(4, 5), torch.tensor([2, 20, -1, 2**40])
    on_cuda(lambda: layer(x, target)[0].backward())
    bad = layer.weight.grad.to_dense()
    layer.zero_grad()
    on_cuda(lambda: layer(x[:1], target[:1])[0].backward())
    torch.testing.assert_close(bad, layer.weight.grad.to_dense())


@pytest.mark.parametrize("start", [[0, 9, 7], [1, 3, 7], [0, 3, 6], [0, -(2**50), 7]])
def test_invalid_cluster_starts_give_not_a_number(on_cuda, start):
    tree = Tree([3, 4], 5, torch.float32)
    x, target, start = random(2, 5), torch.tensor([2, 5]), torch.tensor(start)
    assert on_cuda(LOSS, x, target, *tree.parameters, tree.class_row, start).isnan().all()
    given = [torch.ones(2), x, target, *tree.parameters, tree.class_row, start, None]
    assert not any(gradient.any() for gradient in on_cuda(LOSS_GRAD, *given))
    assert on_cuda(LOG_PROB, x, *tree.parameters, tree.row_class, start).isnan().all()
    values, classes = on_cuda(TOP_K, x, *tree.parameters, tree.row_class, start, k=3)
    assert values.isnan().all()
    assert (classes == -1).all()


def test_invalid_rows_of_classes_give_not_a_number(on_cuda):
    tree = Tree([3, 4], 5, torch.float32)
    x, target = random(2, 5), torch.tensor([2, 5])
    class_row, row_class = tree.class_row.clone(), tree.row_class.clone()
    class_row[2], row_class[0] = 7, -1
    loss = on_cuda(LOSS, x, target, *tree.parameters, class_row, tree.start)
    assert loss.isnan().tolist() == [True, False]
    assert on_cuda(LOG_PROB, x, *tree.parameters, row_class, tree.start).isnan().all()
    values, classes = on_cuda(TOP_K, x, *tree.parameters, row_class, tree.start, k=6)
    assert not values.isnan().any()
    assert (classes >= 0).all()


def test_empty_batch(on_cuda):
    tree = Tree([3, 4], 5, torch.float32)
    x, target = torch.empty(0, 5), torch.empty(0, dtype=torch.int64)
    tables = [tree.class_row, tree.start]
    assert on_cuda(LOSS, x, target, *tree.parameters, *tables).shape == (0,)
    got = on_cuda(LOSS_GRAD, torch.empty(0), x, target, *tree.parameters, *tables, None)
    assert got[0].shape == (0, 5)
    assert not any(gradient.any() for gradient in got)
    tables = [tree.row_class, tree.start]
    assert on_cuda(LOG_PROB, x, *tree.parameters, *tables).shape == (0, 7)
    assert on_cuda(TOP_K, x, *tree.parameters, *tables, k=2)[0].shape == (0, 2)
