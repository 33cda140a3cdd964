"""What benchmarks/layers.py measures: layers, sizes, and the best other ways to compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.layers import (
    CrossMapNormalization,
    FeatureLPPooling,
    LocallyConnected,
    LookupTable,
    Maxout,
    OneBitDequantize,
    TemporalConv,
    TemporalKMaxPool,
    WeightedLookupTable,
)
from graphscale.layers.one_bit import one_bit_quantize


@dataclass
class Other:
    """Another way: a torch module, a model for onnxruntime, or both."""

    module: nn.Module | None = None
    onnx: bytes | None = None
    arrange: Callable | None = None  # makes this way's inputs of the layer's, untimed
    same: bool = True  # False where the result is arranged differently, or is less
    gradient: bool = True


@dataclass
class Case:
    layer: str
    sizes: str
    make: Callable[[], tuple[nn.Module, tuple, dict[str, Other]]]
    gradient: bool = True
    onnx: bool = True


class Function(nn.Module):
    """A function of inputs, and of the parameters that are given by name."""

    def __init__(self, function: Callable, **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, *inputs):
        return self.function(*inputs, **dict(self.named_parameters()))


class Turned(nn.Module):
    def forward(self, x):
        return x.mT


def one_node(op_type: str, inputs: tuple[Tensor, ...], *weights: Tensor, **attributes) -> bytes:
    """A model of one ONNX node that takes `inputs` and has `weights` as constants."""
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    names = [f"x{i}" for i in range(len(inputs))], [f"w{i}" for i in range(len(weights))]
    node = onnx.helper.make_node(op_type, [*names[0], *names[1]], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [value(name, shape=list(x.shape)) for name, x in zip(names[0], inputs)],
        [value("y", shape=None)],
        [onnx.numpy_helper.from_array(w.detach().numpy(), n) for n, w in zip(names[1], weights)],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def temporal_conv(batch, frames, inner, outer, kernel, stride):
    ours = TemporalConv(inner, outer, kernel, stride)
    conv = nn.Conv1d(inner, outer, kernel, stride)
    conv.load_state_dict(ours.state_dict())
    x = torch.randn(batch, frames, inner)
    matrix = ours.weight.permute(0, 2, 1).reshape(outer, -1).detach()

    def unfolded(x):
        return x.unfold(1, kernel, stride).mT.reshape(batch, -1, kernel * inner)

    def turned(x):
        return (x.mT.contiguous(),)

    features_first = one_node(
        "Conv", turned(x), conv.weight.contiguous(), conv.bias, strides=[stride]
    )
    return (
        ours,
        (x,),
        {
            "Conv1d and transposes": Other(nn.Sequential(Turned(), conv, Turned())),
            "Conv1d, features first": Other(conv, features_first, turned, same=False),
            "unfold and Linear": Other(
                Function(
                    lambda x, weight, bias: functional.linear(unfolded(x), weight, bias),
                    weight=matrix,
                    bias=ours.bias,
                )
            ),
            "Linear of unfolded input": Other(
                Function(functional.linear, weight=matrix, bias=ours.bias),
                one_node("Gemm", (unfolded(x).flatten(0, 1),), matrix, ours.bias, transB=1),
                lambda x: (unfolded(x).flatten(0, 1).contiguous(),),
            ),
        },
    )


def indices_of(rows: int, shape: tuple[int, ...], skewed: bool) -> Tensor:
    """Uniform, or by Zipf's law as words are."""
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
            "Embedding": Other(embedding, gather(rows, width, indices, ours.weight)),
            "indexing": Other(
                Function(lambda i, weight: weight[i], weight=ours.weight), gradient=not sparse
            ),
        },
    )


def gather(rows: int, width: int, indices: Tensor, weight: Tensor) -> bytes:
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
            "EmbeddingBag of one": Other(Function(bag, weight=table)),
            "embedding and product": Other(Function(product, weight=table)),
        },
    )


def feature_lp_pooling(shape, width, stride, power):
    features = (shape[1] - width) // stride + 1
    others = {
        "lp_pool": Other(
            Function(
                (lambda x: functional.lp_pool1d(x.abs()[:, None], power, width, stride)[:, 0])
                if len(shape) == 2
                else lambda x: functional.lp_pool3d(
                    x.abs()[:, None], power, (width, 1, 1), (stride, 1, 1)
                )[:, 0]
            )
        ),
        "unfold and vector_norm": Other(
            Function(lambda x: torch.linalg.vector_norm(x.unfold(1, width, stride), power, -1))
        ),
    }
    if width == stride and shape[1] % width == 0:
        split = (shape[0], features, width, *shape[2:])
        root = torch.sqrt if power == 2 else lambda s: s.pow(1 / power)
        others["view, power, sum, root"] = Other(
            Function(
                lambda x: root((x if power == 2 else x.abs()).reshape(split).pow(power).sum(2))
            )
        )
        others["view and vector_norm"] = Other(
            Function(lambda x: torch.linalg.vector_norm(x.reshape(split), power, 2))
        )
    return FeatureLPPooling(width, stride, power), (torch.rand(shape) + 0.1,), others


def maxout(shape, width):
    split = (shape[0], shape[1] // width, width, *shape[2:])
    if len(shape) == 2:
        others = {
            "max_pool1d": Other(Function(lambda x: functional.max_pool1d(x, width))),
            "view and amax": Other(Function(lambda x: x.reshape(split).amax(2))),
        }
        return Maxout(width), (torch.randn(shape),), others
    others = {
        "view and amax": Other(Function(lambda x: x.reshape(split).amax(2))),
        "view and max": Other(Function(lambda x: x.reshape(split).max(2).values)),
        "max_pool3d": Other(
            Function(lambda x: functional.max_pool3d(x[:, None], (width, 1, 1))[:, 0]),
            one_node(
                "MaxPool",
                (torch.empty(shape[0], 1, *shape[1:]),),
                kernel_shape=[width, 1, 1],
                strides=[width, 1, 1],
            ),
            lambda x: (x[:, None],),
        ),
        "AdaptiveMaxPool3d": Other(
            Function(
                lambda x: functional.adaptive_max_pool3d(
                    x[:, None], (shape[1] // width, *shape[2:])
                )[:, 0]
            )
        ),
    }
    others["max_pool3d"].module.function = lambda x: functional.max_pool3d(x, (width, 1, 1))
    return Maxout(width), (torch.randn(shape),), others


def cross_map_normalization(shape, size):
    scale, power = 0.1, 0.75
    x = torch.randn(shape)

    def box(x):
        squares = functional.pad(x.square()[:, None], (0, 0, 0, 0, size // 2, size // 2))
        sums = functional.avg_pool3d(squares, (size, 1, 1), 1, divisor_override=1)[:, 0]
        return x * (1 + scale * sums).pow(-power)

    lrn = one_node("LRN", (x,), alpha=scale * size, beta=power, bias=1.0, size=size)
    return (
        CrossMapNormalization(size, scale, power),
        (x,),
        {
            "LocalResponseNorm": Other(nn.LocalResponseNorm(size, scale * size, power), lrn),
            "squares, avg_pool3d, power": Other(Function(box)),
        },
    )


def temporal_k_max_pool(shape, k):
    def by_topk(x):
        index = x.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
        return x.gather(1, index)

    def by_topk_turned(x):
        turned = x.mT.contiguous()
        index = turned.topk(k, dim=2, sorted=False).indices.sort(dim=2).values
        return turned.gather(2, index).mT

    return (
        TemporalKMaxPool(k),
        (torch.randn(shape),),
        {
            "topk, sort, gather": Other(Function(by_topk)),
            "the same, time last": Other(Function(by_topk_turned)),
        },
    )


def locally_connected(batch, inner, outer, image, kernel):
    ours = LocallyConnected(inner, outer, (image, image), kernel, bias=False)
    places = image - kernel + 1
    weight = ours.weight.detach()
    # A product per position with weights stored position after position: [P, C kH kW, F].
    by_position = weight.permute(1, 2, 3, 4, 5, 0).reshape(places * places, -1, outer)

    def einsum(x, weight):
        patches = functional.unfold(x, kernel)
        flat = weight.reshape(outer, places * places, -1)
        y = torch.einsum("ncp,fpc->nfp", patches, flat)
        return y.reshape(batch, outer, places, places)

    def bmm(x, weight):
        patches = functional.unfold(x, kernel).permute(2, 0, 1)
        return torch.bmm(patches, weight).permute(1, 2, 0).reshape(batch, outer, places, places)

    return (
        ours,
        (torch.randn(batch, inner, image, image),),
        {
            "unfold and einsum": Other(Function(einsum, weight=weight)),
            "unfold and bmm": Other(Function(bmm, weight=by_position.contiguous())),
        },
    )


def one_bit_numpy(gradient: Tensor, residual: Tensor):
    v = gradient.numpy() + residual.numpy()
    columns = v.shape[1]
    bits = v >= 0
    words = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
    positive = np.maximum(v, 0)
    count = np.count_nonzero(bits, axis=1)
    upper = positive.sum(1) / np.maximum(count, 1)
    lower = np.minimum(v, 0).sum(1) / np.maximum(columns - count, 1)
    scales = np.stack([upper, lower], 1)
    return scales, words, v - np.where(bits, scales[:, :1], scales[:, 1:])


def one_bit_torch(gradient: Tensor, residual: Tensor):
    v = gradient + residual
    bits = v >= 0
    powers = torch.bitwise_left_shift(torch.tensor(1), torch.arange(32))
    words = (bits.reshape(len(v), -1, 32) * powers).sum(2)
    count = bits.sum(1)
    upper = v.clamp(min=0).sum(1) / count.clamp(min=1)
    lower = v.clamp(max=0).sum(1) / (v.shape[1] - count).clamp(min=1)
    scales = torch.stack([upper, lower], 1)
    return scales, words, v - torch.where(bits, scales[:, :1], scales[:, 1:])


def _ours_one_bit(gradient: Tensor, residual: Tensor):
    words, scales, left = one_bit_quantize(gradient, residual)
    return scales, words, left


def one_bit_quantization(rows, columns):
    return (
        Function(_ours_one_bit),
        (torch.randn(rows, columns), torch.randn(rows, columns)),
        {
            "numpy, packbits": Other(Function(one_bit_numpy)),
            "torch, shifted sums": Other(Function(one_bit_torch)),
        },
    )


def one_bit_dequantization(rows, columns):
    words, scales, _ = one_bit_quantize(torch.randn(rows, columns), torch.zeros(rows, columns))

    def by_numpy(words, scales):
        bits = np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little")
        pair = scales.numpy()
        return np.where(bits, pair[:, :1], pair[:, 1:])

    return (
        OneBitDequantize(columns),
        (words, scales),
        {"numpy, unpackbits": Other(Function(by_numpy))},
    )


def _case(layer: str, make: Callable, sizes: str, *arguments, **options) -> Case:
    return Case(layer, sizes, partial(make, *arguments), **options)


def _temporal(batch, frames, inner, outer, kernel, stride) -> Case:
    sizes = f"batch {batch}, {frames} frames, {inner}->{outer}, kernel {kernel}, stride {stride}"
    return _case("TemporalConv", temporal_conv, sizes, batch, frames, inner, outer, kernel, stride)


def _lookup(rows, width, shape, skewed=False, sparse=False) -> Case:
    sizes = f"{rows} x {width}, {shape[0]} x {shape[1]} indices"
    sizes += (", Zipf" if skewed else "") + (", sparse" if sparse else "")
    return _case(
        "LookupTable", lookup_table, sizes, rows, width, shape, skewed, sparse, onnx=not sparse
    )


def _shape(shape) -> str:
    return " x ".join(map(str, shape))


IMAGES = (16, 192, 28, 28)
CASES = [
    _temporal(16, 200, 256, 256, 5, 1),
    _temporal(32, 100, 128, 128, 3, 1),
    _temporal(1, 1000, 512, 512, 9, 1),
    _temporal(32, 50, 64, 100, 5, 1),
    _temporal(8, 400, 80, 256, 7, 2),
    _lookup(100_000, 128, (64, 50)),
    _lookup(100_000, 128, (64, 50), skewed=True),
    _lookup(20_000, 256, (128, 100), skewed=True),
    _lookup(100_000, 128, (64, 50), skewed=True, sparse=True),
    _case(
        "WeightedLookupTable",
        weighted_lookup_table,
        "100000 x 128, 64 x 50 indices, Zipf",
        *(100_000, 128, (64, 50)),
    ),
    *(
        _case(
            "FeatureLPPooling",
            feature_lp_pooling,
            f"{_shape(shape)}, width {width}, stride {stride}, power {power}",
            *(shape, width, stride, power),
        )
        for shape, width, stride, power in [
            (IMAGES, 4, 4, 2.0),
            (IMAGES, 4, 2, 2.0),
            (IMAGES, 4, 4, 3.0),
            (IMAGES, 4, 4, 1.5),
            ((256, 4096), 4, 4, 2.0),
        ]
    ),
    *(
        _case("Maxout", maxout, f"{_shape(shape)}, width {width}", shape, width)
        for shape, width in [(IMAGES, 2), (IMAGES, 4), ((256, 4096), 4)]
    ),
    _case("CrossMapNormalization", cross_map_normalization, f"{_shape(IMAGES)}, size 5", IMAGES, 5),
    *(
        _case("TemporalKMaxPool", temporal_k_max_pool, f"{_shape(shape)}, k {k}", shape, k)
        for shape, k in [((32, 100, 128), 5), ((32, 100, 128), 50), ((4, 2000, 64), 8)]
    ),
    *(
        _case(
            "LocallyConnected",
            locally_connected,
            f"batch {batch}, {inner}->{outer}, {image} x {image}, kernel {kernel}",
            *(batch, inner, outer, image, kernel),
        )
        for batch, inner, outer, image, kernel in [(32, 32, 32, 14, 3), (1, 32, 32, 14, 3)]
    ),
    _case("OneBitQuantize", one_bit_quantization, "1024 x 1024", 1024, 1024, gradient=False),
    _case("OneBitDequantize", one_bit_dequantization, "1024 x 1024", 1024, 1024, gradient=False),
]
