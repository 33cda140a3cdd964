"""Lookup tables against torch.nn.functional.embedding."""

import pytest
import torch
from torch.nn import functional

from graphscale import GraphScaleError
from graphscale.layers import LookupTable, WeightedLookupTable
from graphscale.layers.lookup_table import lookup_table, weighted_lookup_table


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4), (), (0, 3)])
def test_equals_embedding(shape):
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, 11, shape)
    torch.testing.assert_close(lookup_table(weight, indices), functional.embedding(indices, weight))
    if indices.numel():
        assert torch.autograd.gradcheck(lambda w: lookup_table(w, indices), weight)


def test_frequent_words_on_many_threads():
    weight = torch.randn(50, 33, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, 50, (40, 300)).clamp(max=9)
    grad = torch.randn(40, 300, 33, dtype=torch.float64)
    wanted = torch.autograd.grad(functional.embedding(indices, weight), weight, grad)[0]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            got = torch.autograd.grad(lookup_table(weight, indices), weight, grad)[0]
            torch.testing.assert_close(got, wanted)
    finally:
        torch.set_num_threads(before)


def test_padding_row_is_zero_and_gets_no_gradient():
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[0, 2], [2, 4]])
    y = lookup_table(weight, indices, 2)
    assert torch.equal(y[0, 1], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(y[1, 1], weight[4])
    assert torch.autograd.gradcheck(lambda w: lookup_table(w, indices, 2), weight)
    grad = torch.autograd.grad(y.sum(), weight)[0]
    assert grad[2].abs().sum() == 0


def test_an_unknown_index_need_not_be_in_the_table():
    assert torch.equal(lookup_table(torch.ones(3, 2), torch.tensor([9, 1]), 9)[0], torch.zeros(2))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 255, 257, 70_000])
def test_gradient_of_many_rows(rows, threads):
    weight = torch.zeros(rows, 3, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, rows, (5, 400))
    grad = torch.randn(5, 400, 3, dtype=torch.float64)
    wanted = torch.autograd.grad(functional.embedding(indices, weight), weight, grad)[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = torch.autograd.grad(lookup_table(weight, indices), weight, grad)[0]
        padded = torch.autograd.grad(lookup_table(weight, indices, 0), weight, grad)[0]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, wanted)
    assert not padded[0].any()
    torch.testing.assert_close(padded[1:], wanted[1:])


@pytest.mark.parametrize("index", [-1, 11, 2**62, -(2**63)])
def test_wrong_indices(index):
    weight, indices = torch.randn(11, 6), torch.tensor([3, index])
    with pytest.raises(GraphScaleError, match=f"index {index} at position 1"):
        lookup_table(weight, indices)


def test_wrong_shapes_and_types():
    with pytest.raises(GraphScaleError, match="'indices' is int32; it must be int64"):
        lookup_table(torch.randn(3, 2), torch.tensor([1], dtype=torch.int32))
    with pytest.raises(GraphScaleError, match="'weight' has 1 dimensions"):
        lookup_table(torch.randn(3), torch.tensor([1]))
    with pytest.raises(GraphScaleError, match="shapes of indices and row_weights"):
        weighted_lookup_table(torch.randn(3, 2), torch.tensor([1]), torch.randn(2))


def test_module_equals_torch():
    layer = LookupTable(7, 4, padding_idx=1, max_norm=1.0)
    relative = torch.nn.Embedding(7, 4, padding_idx=1, max_norm=1.0)
    layer.load_state_dict(relative.state_dict())
    indices = torch.tensor([[1, 2, 3], [3, 6, 0]])
    torch.testing.assert_close(layer(indices), relative(indices))
    torch.testing.assert_close(layer.weight, relative.weight)
    layer.features_first = True
    assert layer(indices).shape == (2, 4, 3)


def test_sparse_gradient():
    dense, sparse = LookupTable(9, 4, padding_idx=0), LookupTable(9, 4, padding_idx=0, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    indices = torch.tensor([[8, 0, 3], [3, 3, 1]])
    scale = torch.randn(2, 3, 4)
    for layer in (dense, sparse):
        (layer(indices) * scale).sum().backward()
    grad = sparse.weight.grad
    assert grad.is_sparse
    assert grad._indices().tolist() == [[8, 3, 3, 3, 1]]  # all but the padding's
    torch.testing.assert_close(grad.to_dense(), dense.weight.grad)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "rows", [9, 70_000]
)  # torch's gradient serves the small table, graphscale's the large one
def test_gradients_of_small_and_large_tables(rows, sparse):
    layer, relative = LookupTable(rows, 4, sparse=sparse), torch.nn.Embedding(rows, 4)
    relative.load_state_dict(layer.state_dict())
    indices = torch.randint(0, rows, (2, 50))
    indices[:, ::3] = rows - 1
    scale = torch.randn(2, 50, 4)
    for each in (layer, relative):
        (each(indices) * scale).sum().backward()
    torch.testing.assert_close(layer(indices), relative(indices))
    assert layer.weight.grad.is_sparse == sparse
    torch.testing.assert_close(layer.weight.grad.to_dense(), relative.weight.grad)


@pytest.mark.parametrize("rows", [9, 70_000])
@pytest.mark.parametrize("options", [{}, {"sparse": True}, {"padding_idx": 1}, {"max_norm": 1}])
def test_layer_says_which_index_is_wrong(rows, options):
    layer = LookupTable(rows, 4, **options)
    with pytest.raises(GraphScaleError, match=f"index {rows} at position 1"):
        layer(torch.tensor([0, rows]))


def test_weighted_table():
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    row_weights = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, 6, (2, 4))
    for padding in (-1, 2):
        wanted = weight[indices] * row_weights[..., None] * (indices != padding)[..., None]
        got = weighted_lookup_table(weight, indices, row_weights, padding)
        torch.testing.assert_close(got, wanted)
        assert torch.autograd.gradcheck(
            lambda w, r: weighted_lookup_table(w, indices, r, padding),  # noqa: B023
            (weight, row_weights),
        )


def test_opcheck():
    weight = torch.randn(6, 3, requires_grad=True)
    args = (weight, torch.tensor([1, 5]), 5)
    torch.library.opcheck(torch.ops.graphscale.lookup_table.default, args)


@pytest.mark.parametrize("padding", [None, 2])
def test_export(check_export, padding):
    check_export(
        LookupTable(7, 4, padding_idx=padding, max_norm=1.5),
        torch.randint(0, 7, (2, 5)),
        operator="LookupTable",
        others=[(torch.randint(0, 7, (6, 5)),)],
        dynamic_shapes={"indices": {0: torch.export.Dim("N")}},
    )
    check_export(
        WeightedLookupTable(7, 4, padding_idx=padding),
        torch.randint(0, 7, (2, 5)),
        torch.rand(2, 5),
        operator="WeightedLookupTable",
    )


@pytest.mark.parametrize("padding", [-1, 2])
def test_operators_and_bodies(check_operator, padding):
    weight, indices = torch.randn(7, 4), torch.randint(0, 7, (3, 6))
    row_weights, grad = torch.randn(3, 6), torch.randn(3, 6, 4)
    check_operator("LookupTable", weight, indices, padding_idx=padding)
    check_operator("LookupTableGrad", grad, indices, weight, padding_idx=padding)
    check_operator("WeightedLookupTable", weight, indices, row_weights, padding_idx=padding)
    check_operator(
        "WeightedLookupTableGrad", grad, indices, row_weights, weight, padding_idx=padding
    )
