"""The two-level softmax against log_softmax within each cluster, in float64."""

import pytest
import torch
from torch.nn import functional

from graphscale import GraphScaleError
from graphscale.layers import HierarchicalSoftmax, TopClasses
from graphscale.layers.class_clusters import balanced_clusters, frequency_clusters, tree_clusters
from graphscale.layers.hierarchical_softmax import (
    hierarchical_softmax_log_prob,
    hierarchical_softmax_loss,
    hierarchical_softmax_loss_grad,
    hierarchical_softmax_top_k,
)


def reference(layer, x, clusters):
    """Log-probabilities of all classes [N, V], by log_softmax within each cluster."""
    outer = functional.log_softmax(x @ layer.cluster_weight.T + layer.cluster_bias, 1)
    logits = (x @ layer.weight.T + layer.bias)[:, layer.class_row]
    within = torch.empty_like(logits)
    for cluster in clusters.unique():
        members = clusters == cluster
        within[:, members] = functional.log_softmax(logits[:, members], 1)
    return outer[:, clusters] + within


def compact(clusters):
    return clusters.unique(return_inverse=True)[1]


def layer_of(clusters, width=5, **kwargs):
    layer = HierarchicalSoftmax(width, len(clusters), clusters=clusters, **kwargs).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


CLUSTERS = [
    torch.randint(0, 4, (23,), generator=torch.Generator().manual_seed(0)),
    torch.zeros(6, dtype=torch.int64),
    torch.arange(7),
    torch.tensor([5, 1, 1, 3, 5]),
    torch.tensor([0]),
]


@pytest.mark.parametrize("clusters", CLUSTERS)
def test_loss_and_probabilities(clusters):
    layer, x = layer_of(clusters, reduction="none"), torch.randn(9, 5, dtype=torch.float64)
    target = torch.randint(0, len(clusters), (9,))
    wanted = reference(layer, x, compact(clusters))
    torch.testing.assert_close(layer.log_prob(x), wanted)
    torch.testing.assert_close(layer.log_prob(x).exp().sum(1), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(layer(x, target), -wanted[torch.arange(9), target])
    for k in {1, len(clusters) // 2 + 1, len(clusters)}:
        values, classes = layer.top_k(x, k)
        torch.testing.assert_close(values, wanted.topk(k).values)
        torch.testing.assert_close(wanted.gather(1, classes), values)


@pytest.mark.parametrize("clusters", CLUSTERS)
def test_gradients(clusters):
    layer = layer_of(clusters)
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, len(clusters), (6,))
    target[2] = -100
    arguments = (x, *layer._parameters_in_order())

    def loss(x, *parameters):
        tensors = (x, target, *parameters, layer.class_row, layer.cluster_start)
        return hierarchical_softmax_loss(*tensors)

    assert loss(*arguments)[2] == 0
    assert torch.autograd.gradcheck(loss, arguments)
    assert torch.autograd.gradgradcheck(loss, arguments)


def test_reductions_are_torchs():
    layer, x = layer_of(CLUSTERS[0]), torch.randn(9, 5, dtype=torch.float64)
    target = torch.randint(0, 23, (9,))
    target[::4] = -100
    for layer.reduction in ("mean", "sum", "none"):
        wanted = functional.nll_loss(layer.log_prob(x), target, reduction=layer.reduction)
        torch.testing.assert_close(layer(x, target), wanted)


def test_sparse_gradients_touch_only_the_targets_clusters():
    dense, sparse = layer_of(CLUSTERS[0]), layer_of(CLUSTERS[0], sparse=True)
    sparse.load_state_dict(dense.state_dict())
    x = torch.randn(4, 5, dtype=torch.float64)
    target = torch.tensor([3, 17, -100, 3])
    for layer in (dense, sparse):
        layer(x, target).backward()
    touched = CLUSTERS[0][dense.row_class].unsqueeze(0) == CLUSTERS[0][[3, 17]].unsqueeze(1)
    rows = touched.any(0).nonzero().flatten()
    assert sparse.weight.grad.is_sparse
    assert torch.equal(sparse.weight.grad._indices()[0], rows)
    for name, parameter in dense.named_parameters():
        other = dict(sparse.named_parameters())[name].grad
        torch.testing.assert_close(other.to_dense(), parameter.grad)
    # SGD with sparse gradients is fbcunn's direct update.
    torch.optim.SGD(dense.parameters(), 0.5).step()
    torch.optim.SGD(sparse.parameters(), 0.5).step()
    torch.testing.assert_close(sparse.weight, dense.weight)


def test_second_derivative_of_the_sparse_loss():
    dense, sparse = layer_of(CLUSTERS[0]), layer_of(CLUSTERS[0], sparse=True)
    sparse.load_state_dict(dense.state_dict())
    target = torch.tensor([3, 17, -100, 3])
    results = []
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(len(CLUSTERS[0]), 5, dtype=torch.float64)
    for layer in (dense, sparse):
        wanted = (x, layer.cluster_bias, layer.weight)
        first = torch.autograd.grad(layer(x, target), wanted, create_graph=True)
        total = first[0].square().sum() + first[1].sum() + (first[2].to_dense() * factor).sum()
        results.append(torch.autograd.grad(total, [x, *layer._parameters_in_order()]))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_second_derivative_of_a_million_classes_in_bounded_memory():
    layer = HierarchicalSoftmax(8, 1_000_000)
    x = torch.randn(16, 8, requires_grad=True)
    loss = layer(x, torch.randint(0, 1_000_000, (16,)))
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    grad.square().sum().backward()
    assert (layer.weight.grad.abs().sum(1) > 0).sum() <= 16 * 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("samples", [300, 3000])
def test_sums_of_16_bit_gradients_are_rounded_once(dtype, samples):
    """The kernel adds 3000 samples of a cluster up in several pieces; the sum is rounded once."""
    layer = HierarchicalSoftmax(6, 400, num_clusters=2, reduction="sum")
    x, target = torch.randn(samples, 6).to(dtype), torch.arange(samples) % 3 * 150
    half = {name: p.detach().to(dtype) for name, p in layer.named_parameters()}
    results = []
    for wide in (torch.float64, dtype):
        given = {name: p.to(wide).requires_grad_() for name, p in half.items()}
        loss = torch.func.functional_call(layer, given, (x.to(wide), target))
        results.append(torch.autograd.grad(loss, list(given.values())))
    for wanted, got in zip(*results):
        assert got.dtype == dtype
        assert (got.double() - wanted).norm() <= torch.finfo(dtype).eps * wanted.norm()


def test_a_million_classes_in_bounded_memory():
    layer = HierarchicalSoftmax(8, 1_000_000, sparse=True)
    x = torch.randn(16, 8, requires_grad=True)
    loss = layer(x, torch.randint(0, 1_000_000, (16,)))
    loss.backward()
    assert layer.weight.grad._nnz() <= 16 * 1000
    values, classes = layer.top_k(x.detach(), 5)
    outer = functional.log_softmax(x @ layer.cluster_weight.T + layer.cluster_bias, 1)
    within = functional.log_softmax((x @ layer.weight.T + layer.bias).view(16, 1000, 1000), 2)
    wanted = (outer[..., None] + within).flatten(1).topk(5)
    torch.testing.assert_close(values, wanted.values.detach(), rtol=1e-4, atol=1e-5)
    assert (classes == wanted.indices).float().mean() > 0.9


def test_extreme_logits():
    layer = layer_of(torch.tensor([0, 0, 1, 1]), reduction="none")
    x = torch.full((1, 5), 1e200, dtype=torch.float64, requires_grad=True)
    loss = layer(x, torch.tensor([2]))
    loss.sum().backward()
    assert x.grad.isfinite().all()
    assert not loss.isnan().any()
    layer.top_k(torch.full((1, 5), float("nan"), dtype=torch.float64), 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    layer, x = layer_of(CLUSTERS[0]), torch.randn(7, 5, dtype=torch.float64)
    target = torch.randint(0, 23, (7,))
    exact = layer(x, target)
    layer.to(dtype)
    given = x.to(dtype).requires_grad_()
    loss = layer(given, target)
    loss.backward()
    assert abs(loss.item() - exact.item()) < 0.03 * abs(exact.item())
    assert given.grad.dtype == dtype
    assert layer.log_prob(given).dtype == layer.top_k(given, 2)[0].dtype == dtype


def test_empty_batch():
    layer = layer_of(CLUSTERS[0])
    x = torch.zeros(0, 5, dtype=torch.float64, requires_grad=True)
    layer.reduction = "sum"
    layer(x, torch.zeros(0, dtype=torch.int64)).backward()
    assert layer.weight.grad.abs().sum() == 0
    assert layer.log_prob(x).shape == (0, 23)
    assert layer.top_k(x, 3)[0].shape == (0, 3)


def test_clusters():
    assert balanced_clusters(5, 2).tolist() == [0, 0, 0, 1, 1]
    frequencies = torch.tensor([1.0, 8.0, 2.0, 4.0])
    assert frequency_clusters(frequencies, 2).tolist() == [1, 0, 1, 0]
    assert frequency_clusters(frequencies, 2, equal_mass=True).tolist() == [1, 0, 1, 1]
    vectors = torch.tensor([[5.0, 1], [-5, 0], [5.5, 0], [-6, 1], [4, 1], [-4, 0]])
    assert tree_clusters(vectors, 2).tolist() == [0, 1, 0, 1, 0, 1]
    assert tree_clusters(vectors, 6).unique().tolist() == [0, 1, 2, 3, 4, 5]
    layer = HierarchicalSoftmax(3, 100, frequencies=torch.rand(100))
    assert len(layer.cluster_start) == 11


def test_wrong_arguments():
    layer = layer_of(CLUSTERS[0])
    x = torch.randn(2, 5, dtype=torch.float64)
    with pytest.raises(GraphScaleError, match="target 23 of sample 1 is no class"):
        layer(x, torch.tensor([0, 23]))
    with pytest.raises(GraphScaleError, match="widths of x and cluster_weight"):
        layer.log_prob(x[:, :4])
    for wrong in (x[0, 0], x[None, :, :4], x[0, :0]):
        with pytest.raises(GraphScaleError, match=r"x is \[.*\]; give \[\.\.\., 5\]"):
            layer.top_k(wrong, 2)
    with pytest.raises(GraphScaleError, match="k is 24"):
        layer.top_k(x, 24)
    with pytest.raises(GraphScaleError, match="reduction is 'avg'"):
        layer_of(CLUSTERS[0], reduction="avg")
    with pytest.raises(GraphScaleError, match="one value per class"):
        HierarchicalSoftmax(5, 9, clusters=CLUSTERS[0])
    layer.cluster_start[1] = 40
    with pytest.raises(GraphScaleError, match="cluster_start must rise"):
        layer.log_prob(x)
    layer.cluster_start[1] = 3
    layer.row_class[2] = 2**40
    with pytest.raises(GraphScaleError, match="row_class of row 2"):
        layer.log_prob(x)
    layer.class_row[3] = -7
    with pytest.raises(GraphScaleError, match="class_row of class 3 is -7"):
        layer(x, torch.tensor([3, 3]))


def test_export(check_export):
    layer = layer_of(CLUSTERS[0]).float()
    x, target = torch.randn(4, 5), torch.randint(0, 23, (4,))
    batch = {0: torch.export.Dim("N")}
    for layer.reduction in ("mean", "none"):
        check_export(
            layer,
            x,
            target,
            operator="HierarchicalSoftmaxLoss",
            others=[(torch.randn(9, 5), torch.randint(0, 23, (9,)))],
            dynamic_shapes={"x": batch, "target": batch},
        )
    check_export(
        TopClasses(layer, 3),
        x,
        operator="HierarchicalSoftmaxTopK",
        others=[(torch.randn(9, 5),)],
        dynamic_shapes={"x": batch},
    )


@pytest.mark.parametrize("clusters", CLUSTERS)
def test_operators_and_bodies(check_operator, clusters):
    layer, x = layer_of(clusters).float(), torch.randn(6, 5)
    target = torch.randint(0, len(clusters), (6,))
    target[1] = 99
    parameters = [p.detach() for p in layer._parameters_in_order()]
    by_class = (*parameters, layer.class_row, layer.cluster_start)
    by_row = (*parameters, layer.row_class, layer.cluster_start)
    name = "HierarchicalSoftmax"
    check_operator(f"{name}Loss", x, target, *by_class, ignore_index=99)
    grad = torch.randn(6)
    check_operator(f"{name}LossGrad", grad, x, target, *by_class, None, ignore_index=99)
    check_operator(f"{name}LogProb", x, *by_row)
    check_operator(f"{name}TopK", x, *by_row, k=(len(clusters) + 1) // 2)


def test_gradients_of_some_clusters_in_onnxruntime(check_operator):
    layer, x = layer_of(CLUSTERS[0]).float(), torch.randn(2, 5)
    parameters = [p.detach() for p in layer._parameters_in_order()]
    target = (CLUSTERS[0] == 2).nonzero()[:2, 0]
    chosen = torch.tensor([3, 2])
    rows = int((CLUSTERS[0] >= 2).sum())
    tensors = (torch.ones(2), x, target, *parameters, layer.class_row, layer.cluster_start)
    check_operator("HierarchicalSoftmaxLossGrad", *tensors, chosen, rows=rows, body=False)
    with pytest.raises(GraphScaleError, match="cluster 2 of a target is not among"):
        hierarchical_softmax_loss_grad(*tensors, chosen[:1], -100, int((CLUSTERS[0] == 3).sum()))


def test_clusters_without_classes():
    """Only the operator takes them, the module does not; their probability goes to no class."""
    layer = layer_of(torch.tensor([0, 0, 2, 2, 2]))
    x, target = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 4, 3, 1])
    empty = torch.randn(1, 5, dtype=torch.float64)
    cluster_weight = torch.cat([layer.cluster_weight[:1], empty, layer.cluster_weight[1:], empty])
    bias, start = torch.zeros(4, dtype=torch.float64), torch.tensor([0, 2, 2, 5, 5])
    tensors = (cluster_weight, bias, layer.weight, layer.bias)
    outer = functional.log_softmax(x @ cluster_weight.T, 1)[:, [0, 0, 2, 2, 2]]
    logits = x @ layer.weight.T + layer.bias
    within = [functional.log_softmax(part, 1) for part in logits.split([2, 3], 1)]
    wanted = outer + torch.cat(within, 1)
    torch.testing.assert_close(
        hierarchical_softmax_log_prob(x, *tensors, layer.row_class, start), wanted
    )
    loss = hierarchical_softmax_loss(x, target, *tensors, layer.class_row, start)
    torch.testing.assert_close(loss, -wanted[torch.arange(4), target])
    values, _ = hierarchical_softmax_top_k(x, *tensors, layer.row_class, start, 5)
    torch.testing.assert_close(values, wanted.sort(1, descending=True).values)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_targets_of_other_integers(dtype):
    layer, x, target = HierarchicalSoftmax(5, 23), torch.randn(4, 5), torch.tensor([3, 22, 0, 7])
    assert torch.equal(layer(x, target.to(dtype)), layer(x, target))
    with pytest.raises(GraphScaleError, match="integers"):
        layer(x, target.float())


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 1, 3)])
def test_more_and_fewer_dimensions(shape):
    torch.manual_seed(0)
    layer = HierarchicalSoftmax(5, 23, reduction="none")
    x, target = torch.randn(*shape, 5), torch.randint(0, 23, shape)
    flat = layer(x.reshape(-1, 5), target.reshape(-1))
    assert torch.equal(layer(x, target), flat.reshape(shape))
    assert torch.equal(layer.log_prob(x), layer.log_prob(x.reshape(-1, 5)).reshape(*shape, 23))
    for found, wanted in zip(layer.top_k(x, 4), layer.top_k(x.reshape(-1, 5), 4), strict=True):
        assert torch.equal(found, wanted.reshape(*shape, 4))
    with pytest.raises(GraphScaleError, match="give x"):
        layer(x[None], target)
    with pytest.raises(GraphScaleError, match="give x"):
        layer(torch.randn(2, 3, 5), torch.randint(0, 23, (3, 2)))


def test_log_probabilities_have_gradients():
    layer = HierarchicalSoftmax(3, 7).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer.log_prob, x)
    assert torch.autograd.gradcheck(lambda x: layer.top_k(x, 3)[0], x)
