"""Cases of LookupTable and WeightedLookupTable, against torch's Embedding and EmbeddingBag."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.layers import LookupTable, WeightedLookupTable

from .case import Alternative, Case, Function, make_case


def indices_of(rows: int, shape: tuple[int, ...], skewed: bool) -> Tensor:
    """Random indices: uniform, or where `skewed` by Zipf's law, as words are."""
    if not skewed:
        return torch.randint(0, rows, shape)
    frequency = 1 / torch.arange(1, rows + 1, dtype=torch.float64)
    return torch.multinomial(frequency, int(np.prod(shape)), replacement=True).reshape(shape)


def lookup_table(rows, width, shape, skewed, sparse):
    ours = LookupTable(rows, width, sparse=sparse)
    embedding = nn.Embedding(rows, width, sparse=sparse)
    embedding.load_state_dict(ours.state_dict())
    indices = indices_of(rows, shape, skewed)
    return (
        ours,
        (indices,),
        {
            "Embedding": Alternative(embedding, gather(rows, width, indices, ours.weight)),
            "indexing": Alternative(
                Function(lambda i, weight: weight[i], weight=ours.weight), gradient=not sparse
            ),
        },
    )


def gather(rows: int, width: int, indices: Tensor, weight: Tensor) -> bytes:
    """An ONNX model of one Gather."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["weight", "indices"], ["y"])],
        "layer",
        [onnx.helper.make_tensor_value_info("indices", onnx.TensorProto.INT64, indices.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight.detach().numpy(), "weight")],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def weighted_lookup_table(rows, width, shape):
    ours = WeightedLookupTable(rows, width)
    indices, factors = indices_of(rows, shape, True), torch.rand(shape)
    table = ours.weight

    def bag(indices, factors, weight):
        rows = functional.embedding_bag(
            indices.reshape(-1, 1),
            weight,
            mode="sum",
            per_sample_weights=factors.reshape(-1, 1),
        )
        return rows.reshape(*indices.shape, -1)

    def product(indices, factors, weight):
        return functional.embedding(indices, weight) * factors[..., None]

    return (
        ours,
        (indices, factors),
        {
            "EmbeddingBag of one": Alternative(Function(bag, weight=table)),
            "embedding and product": Alternative(Function(product, weight=table)),
        },
    )


def _lookup(rows, width, shape, skewed=False, sparse=False) -> Case:
    sizes = f"{rows} x {width}, {shape[0]} x {shape[1]} indices"
    sizes += (", Zipf" if skewed else "") + (", sparse" if sparse else "")
    return make_case(
        "LookupTable", lookup_table, sizes, rows, width, shape, skewed, sparse, onnx=not sparse
    )


CASES = [
    _lookup(100_000, 128, (64, 50)),
    _lookup(100_000, 128, (64, 50), skewed=True),
    _lookup(20_000, 256, (128, 100), skewed=True),
    _lookup(100_000, 128, (64, 50), skewed=True, sparse=True),
    make_case(
        "WeightedLookupTable",
        weighted_lookup_table,
        "100000 x 128, 64 x 50 indices, Zipf",
        *(100_000, 128, (64, 50)),
    ),
]
