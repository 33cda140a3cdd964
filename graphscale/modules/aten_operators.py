"""torch's commonest operators as ONNX nodes: the table of `translate_program`.

A translation takes the graph that is being made and the arguments of the operator's schema, and
returns the result. It makes the nodes that torch.onnx makes. Arguments that it has no node for
raise NotTranslatedError, which leaves the program to torch.onnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphscale.core.resampling import adaptive_averages
from graphscale.modules.program_graph import NotTranslatedError, Number, ProgramGraph
from graphscale.passes.graph.fixed_weights import mark_fixed

_ATEN = torch.ops.aten
_END = 2**63 - 1  # as the end of a Slice: all of the axis

TRANSLATIONS: dict[torch._ops.OpOverload, Callable] = {}

_Ints = int | Sequence[int]


def _translates(*overloads: torch._ops.OpOverload) -> Callable:
    def add(function: Callable) -> Callable:
        TRANSLATIONS.update(dict.fromkeys(overloads, function))
        return function

    return add


def _require(condition: bool) -> None:
    if not condition:
        raise NotTranslatedError


def _rank(value: ir.Value) -> int:
    return len(value.shape)


# --- element by element ---------------------------------------------------------------------------


def _same(graph: ProgramGraph, x: ir.Value, *_: Any) -> ir.Value:
    return x


def _unary(kind: str, **attributes: Any) -> Callable:
    return lambda graph, x, *_: graph.op(kind, graph.operand(x), **attributes)


def _binary(kind: str) -> Callable:
    def translate(graph: ProgramGraph, x: Any, y: Any, alpha: float = 1) -> ir.Value:
        _require(alpha == 1)
        return graph.op(kind, graph.operand(x), graph.operand(y))

    return translate


for _name in ("abs", "ceil", "cos", "erf", "exp", "floor", "log", "mish", "neg", "reciprocal"):
    TRANSLATIONS[getattr(_ATEN, _name).default] = _unary(_name.capitalize())
for _name in ("relu", "sigmoid", "sin", "sqrt", "tanh"):
    TRANSLATIONS[getattr(_ATEN, _name).default] = _unary(_name.capitalize())
TRANSLATIONS |= {
    _ATEN.square.default: lambda graph, x: graph.op("Mul", x, x),
    _ATEN.hardsigmoid.default: _unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    _ATEN.hardswish.default: _unary("HardSwish"),
    _ATEN.relu6.default: lambda graph, x: _clip(graph, x, 0.0, 6.0),
    _ATEN.alias.default: _same,
    _ATEN.clone.default: _same,
    _ATEN.contiguous.default: _same,
    _ATEN.detach.default: _same,
    _ATEN.lift_fresh_copy.default: _same,
}
for _name, _kind in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div")):
    TRANSLATIONS[getattr(_ATEN, _name).Tensor] = _binary(_kind)
    TRANSLATIONS[getattr(_ATEN, _name).Scalar] = _binary(_kind)
for _overload in (_ATEN.pow.Tensor_Scalar, _ATEN.pow.Tensor_Tensor):
    TRANSLATIONS[_overload] = _binary("Pow")
for _name, _kind in (("maximum", "Max"), ("minimum", "Min")):
    TRANSLATIONS[getattr(_ATEN, _name).default] = _binary(_kind)


@_translates(_ATEN.addcmul.default)
def _add_product(
    graph: ProgramGraph, x: ir.Value, y: ir.Value, z: ir.Value, scale: float
) -> ir.Value:
    _require(scale == 1)
    return graph.op("Add", x, graph.op("Mul", y, z))


@_translates(_ATEN.rsub.Scalar)
def _subtract_from(graph: ProgramGraph, x: ir.Value, y: float, alpha: float) -> ir.Value:
    _require(alpha == 1)
    return graph.op("Sub", graph.operand(y), graph.operand(x))


@_translates(_ATEN.dropout.default, _ATEN.feature_dropout.default)
def _dropout(graph: ProgramGraph, x: ir.Value, p: float, train: bool) -> ir.Value:
    _require(not train)
    return x


@_translates(_ATEN.clamp.default, _ATEN.hardtanh.default)
def _clip(graph: ProgramGraph, x: ir.Value, low: float | None, high: float | None) -> ir.Value:
    bounds = [None if each is None else graph.operand(each) for each in (low, high)]
    return graph.op("Clip", x, *bounds)


@_translates(_ATEN.clamp_min.default)
def _clip_below(graph: ProgramGraph, x: ir.Value, low: float) -> ir.Value:
    return _clip(graph, x, low, None)


@_translates(_ATEN.silu.default)
def _silu(graph: ProgramGraph, x: ir.Value) -> ir.Value:
    return graph.op("Mul", x, graph.op("Sigmoid", x))


@_translates(_ATEN.gelu.default)
def _gelu(graph: ProgramGraph, x: ir.Value, approximate: str) -> ir.Value:
    return graph.op("Gelu", x, approximate=approximate)


@_translates(_ATEN.leaky_relu.default)
def _leaky_relu(graph: ProgramGraph, x: ir.Value, slope: float) -> ir.Value:
    return graph.op("LeakyRelu", x, alpha=float(slope))


@_translates(_ATEN.elu.default)
def _elu(graph: ProgramGraph, x: ir.Value, alpha: float, scale: float, inner: float) -> ir.Value:
    _require(scale == inner == 1)
    return graph.op("Elu", x, alpha=float(alpha))


@_translates(_ATEN.rsqrt.default)
def _rsqrt(graph: ProgramGraph, x: ir.Value) -> ir.Value:
    return graph.op("Reciprocal", graph.op("Sqrt", graph.operand(x)))


@_translates(_ATEN.softmax.int, _ATEN._softmax.default)
def _softmax(graph: ProgramGraph, x: ir.Value, axis: int, dtype: Any) -> ir.Value:
    return graph.op("Softmax", graph.operand(x), axis=axis)


@_translates(_ATEN.to.dtype, _ATEN._to_copy.default)
def _to(graph: ProgramGraph, x: ir.Value, *_: Any) -> ir.Value:
    return graph.operand(x)


# --- layers ---------------------------------------------------------------------------------------


def _ints(numbers: _Ints, rank: int) -> list[int]:
    """A number for each of `rank` axes, of torch's one number or list of one or more."""
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    return numbers * rank if len(numbers) == 1 else numbers


@_translates(_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)
@_translates(_ATEN.conv1d.padding, _ATEN.conv2d.padding, _ATEN.conv3d.padding)
def _convolution(
    graph: ProgramGraph,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    stride: _Ints,
    padding: _Ints | str,
    dilation: _Ints,
    groups: int,
) -> ir.Value:
    rank = _rank(weight) - 2
    _require(_rank(x) == rank + 2)
    dilations = _ints(dilation, rank)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, tuple(weight.shape)[2:])]
        begin, end = [each // 2 for each in totals], [each - each // 2 for each in totals]
    else:
        begin = end = _ints(0 if padding == "valid" else padding, rank)
    return graph.op(
        "Conv",
        *([x, weight] if bias is None else [x, weight, bias]),
        dilations=dilations,
        group=groups,
        pads=[*begin, *end],
        strides=_ints(stride, rank),
    )


@_translates(_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input)
@_translates(_ATEN.conv_transpose3d.input)
def _transposed(
    graph: ProgramGraph,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    stride: _Ints,
    padding: _Ints,
    output_padding: _Ints,
    groups: int,
    dilation: _Ints,
) -> ir.Value:
    rank = _rank(weight) - 2
    _require(_rank(x) == rank + 2)
    return graph.op(
        "ConvTranspose",
        *([x, weight] if bias is None else [x, weight, bias]),
        dilations=_ints(dilation, rank),
        group=groups,
        output_padding=_ints(output_padding, rank),
        pads=_ints(padding, rank) * 2,
        strides=_ints(stride, rank),
    )


@_translates(_ATEN._native_batch_norm_legit_no_training.default)
def _batch_norm(
    graph: ProgramGraph,
    x: ir.Value,
    scale: ir.Value,
    bias: ir.Value,
    mean: ir.Value,
    variance: ir.Value,
    momentum: float,
    epsilon: float,
) -> tuple[ir.Value, None, None]:
    result = graph.op(
        "BatchNormalization",
        *(x, scale, bias, mean, variance),
        epsilon=float(epsilon),
        momentum=1.0 - momentum,
    )
    return result, None, None


@_translates(_ATEN.layer_norm.default)
def _layer_norm(
    graph: ProgramGraph,
    x: ir.Value,
    shape: Sequence[int],
    scale: ir.Value | None,
    bias: ir.Value | None,
    epsilon: float,
    _: bool,
) -> ir.Value:
    _require(scale is not None)
    weights = [scale] if bias is None else [scale, bias]
    return graph.op("LayerNormalization", x, *weights, axis=-len(shape), epsilon=float(epsilon))


@_translates(_ATEN.linear.default)
def _linear(graph: ProgramGraph, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    _require(_rank(weight) == 2)
    if _rank(x) == 2:
        inputs = [x, weight] if bias is None else [x, weight, bias]
        return graph.op("Gemm", *inputs, transB=1)
    turned = graph.op("Transpose", weight, perm=[1, 0])
    product = graph.op("MatMul", x, turned)
    return product if bias is None else graph.op("Add", product, bias)


TRANSLATIONS[_ATEN.matmul.default] = TRANSLATIONS[_ATEN.bmm.default] = lambda graph, x, y: graph.op(
    "MatMul", x, y
)


@_translates(_ATEN.scaled_dot_product_attention.default)
def _attention(
    graph: ProgramGraph,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> ir.Value:
    _require(not dropout and not causal and not grouped)
    _require(mask is None or mask.dtype == graph.dtype)
    rank = _rank(key)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    query = graph.op("Mul", query, graph.constant(scale, graph.dtype))
    key = graph.op("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = graph.op("MatMul", query, key)
    scores = scores if mask is None else graph.op("Add", scores, mask)
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)


# --- pooling and resizing -------------------------------------------------------------------------


def _pool(graph: ProgramGraph, kind: str, x: ir.Value, kernel, stride, padding, **options: Any):
    rank = _rank(x) - 2
    kernel = _ints(kernel, rank)
    _require(rank == len(kernel))  # not so for an image without a batch
    return graph.op(
        kind,
        x,
        kernel_shape=kernel,
        pads=_ints(padding, rank) * 2,
        strides=_ints(stride, rank) if stride else kernel,
        **options,
    )


@_translates(_ATEN.max_pool1d.default, _ATEN.max_pool2d.default, _ATEN.max_pool3d.default)
def _max_pool(graph, x, kernel, stride, padding, dilation, ceil_mode) -> ir.Value:
    dilations = _ints(dilation, _rank(x) - 2)
    options = {"dilations": dilations, "ceil_mode": int(ceil_mode)}
    return _pool(graph, "MaxPool", x, kernel, stride, padding, **options)


@_translates(_ATEN.avg_pool2d.default, _ATEN.avg_pool3d.default)
def _average_pool(
    graph, x, kernel, stride, padding, ceil_mode, include_padding, divisor
) -> ir.Value:
    _require(divisor is None)
    options = {"ceil_mode": int(ceil_mode), "count_include_pad": int(include_padding)}
    return _pool(graph, "AveragePool", x, kernel, stride, padding, **options)


@_translates(_ATEN.avg_pool1d.default)
def _average_pool_1d(graph, x, kernel, stride, padding, ceil_mode, include_padding) -> ir.Value:
    return _average_pool(graph, x, kernel, stride, padding, ceil_mode, include_padding, None)


@_translates(_ATEN.adaptive_avg_pool1d.default, _ATEN.adaptive_avg_pool2d.default)
def _adaptive_average_pool(graph: ProgramGraph, x: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """Windows of different sizes: a product with a matrix of averages along each axis."""
    before = tuple(x.shape)[-len(sizes) :]
    _require(all(isinstance(size, int) for size in (*before, *sizes)))
    matrices = [adaptive_averages(*each) for each in zip(before, sizes)]
    if len(sizes) == 2:
        x = graph.op("MatMul", _fixed_matrix(graph, matrices[0]), x)
    return graph.op("MatMul", x, _fixed_matrix(graph, matrices[-1].T))


def _fixed_matrix(graph: ProgramGraph, matrix: np.ndarray) -> ir.Value:
    """A matrix that nothing trains."""
    value = graph.constant(matrix, graph.dtype)
    mark_fixed(value)
    return value


def _resize(
    graph: ProgramGraph, x: ir.Value, sizes: Any, scales: Any, **attributes: Any
) -> ir.Value:
    if scales is not None:
        numbers = graph.constant([1.0, 1.0, *scales], ir.DataType.FLOAT)
        return graph.op("Resize", x, None, numbers, **attributes)
    _require(sizes is not None and not any(isinstance(each, Number) for each in sizes))
    kept = graph.op("Shape", x, start=0, end=2)
    numbers = graph.op("Concat", kept, graph.constant(sizes), axis=0)
    return graph.op("Resize", x, None, None, numbers, **attributes)


@_translates(_ATEN.upsample_nearest1d.vec, _ATEN.upsample_nearest2d.vec)
@_translates(_ATEN.upsample_nearest3d.vec)
def _upsample_nearest(graph: ProgramGraph, x: ir.Value, sizes: Any, scales: Any) -> ir.Value:
    options = {"mode": "nearest", "nearest_mode": "floor"}
    options["coordinate_transformation_mode"] = "asymmetric"
    return _resize(graph, x, sizes, scales, **options)


@_translates(_ATEN.upsample_bilinear2d.vec)
def _upsample_bilinear(
    graph: ProgramGraph, x: ir.Value, sizes: Any, corners: bool, scales: Any
) -> ir.Value:
    points = "align_corners" if corners else "pytorch_half_pixel"
    return _resize(graph, x, sizes, scales, mode="linear", coordinate_transformation_mode=points)


@_translates(_ATEN.upsample_bicubic2d.vec)
def _upsample_bicubic(
    graph: ProgramGraph, x: ir.Value, sizes: Any, corners: bool, scales: Any
) -> ir.Value:
    options = {"mode": "cubic", "cubic_coeff_a": -0.75}
    options["coordinate_transformation_mode"] = "align_corners" if corners else "pytorch_half_pixel"
    return _resize(graph, x, sizes, scales, **options)


@_translates(_ATEN._upsample_bilinear2d_aa.vec, _ATEN._upsample_bicubic2d_aa.vec)
def _upsample_without_aliases(
    graph: ProgramGraph, x: ir.Value, sizes: Any, corners: bool, scales: Any
) -> ir.Value:
    _require(not corners)
    cubic = graph.call.target is _ATEN._upsample_bicubic2d_aa.vec
    options = {"mode": "cubic", "cubic_coeff_a": -0.5} if cubic else {"mode": "linear"}
    return _resize(graph, x, sizes, scales, antialias=1, exclude_outside=1, **options)


# --- reductions -----------------------------------------------------------------------------------


def _reduction(kind: str) -> Callable:
    def translate(graph, x: ir.Value, axes: _Ints | None = None, keep=False, _=None) -> ir.Value:
        axes = [axes] if isinstance(axes, int) else list(axes or range(_rank(x)))
        return graph.op(kind, graph.operand(x), graph.constant(axes), keepdims=int(keep))

    return translate


TRANSLATIONS |= {
    _ATEN.mean.default: lambda graph, x, _: _reduction("ReduceMean")(graph, x),
    _ATEN.mean.dim: _reduction("ReduceMean"),
    _ATEN.sum.dim_IntList: _reduction("ReduceSum"),
    _ATEN.amax.default: _reduction("ReduceMax"),
    _ATEN.amin.default: _reduction("ReduceMin"),
}


@_translates(_ATEN.linalg_vector_norm.default)
def _vector_norm(
    graph: ProgramGraph, x: ir.Value, order: float, axes: _Ints | None, keep: bool, _: Any
) -> ir.Value:
    _require(order in (1, 2))
    return _reduction("ReduceL1" if order == 1 else "ReduceL2")(graph, x, axes, keep)


# --- moving elements ------------------------------------------------------------------------------


@_translates(_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default)
def _reshape(graph: ProgramGraph, x: ir.Value, sizes: Sequence) -> ir.Value:
    return graph.op("Reshape", x, graph.sizes(sizes))


@_translates(_ATEN.reshape_as.default, _ATEN.view_as.default)
def _reshape_as(graph: ProgramGraph, x: ir.Value, other: ir.Value) -> ir.Value:
    return graph.op("Reshape", x, graph.op("Shape", other))


@_translates(_ATEN.flatten.using_ints)
def _flatten(graph: ProgramGraph, x: ir.Value, start: int, end: int) -> ir.Value:
    rank = _rank(x)
    start, end = start % max(rank, 1), end % max(rank, 1)
    if start == 1 and end == rank - 1:
        return graph.op("Flatten", x, axis=1)
    sizes = tuple(x.shape)
    known = [*sizes[:start], -1, *sizes[end + 1 :]]
    # A 0 copies the size of the input at the same place, which the batch needs.
    numbers = [0 if at < start and not isinstance(n, int) else n for at, n in enumerate(known)]
    _require(all(isinstance(each, int) for each in numbers))
    return graph.op("Reshape", x, graph.constant(numbers))


@_translates(_ATEN.permute.default)
def _permute(graph: ProgramGraph, x: ir.Value, order: Sequence[int]) -> ir.Value:
    return graph.op("Transpose", x, perm=[axis % _rank(x) for axis in order])


@_translates(_ATEN.transpose.int)
def _transpose(graph: ProgramGraph, x: ir.Value, first: int, second: int) -> ir.Value:
    order = list(range(_rank(x)))
    order[first], order[second] = order[second], order[first]
    return graph.op("Transpose", x, perm=order)


@_translates(_ATEN.unsqueeze.default)
def _unsqueeze(graph: ProgramGraph, x: ir.Value, axis: int) -> ir.Value:
    return graph.op("Unsqueeze", x, graph.constant([axis]))


@_translates(_ATEN.squeeze.dim, _ATEN.squeeze.dims)
def _squeeze(graph: ProgramGraph, x: ir.Value, axes: _Ints) -> ir.Value:
    axes = [axes] if isinstance(axes, int) else list(axes)
    axes = [axis for axis in axes if x.shape[axis] == 1]  # torch leaves longer ones as they are
    return graph.op("Squeeze", x, graph.constant(axes)) if axes else x


@_translates(_ATEN.expand.default)
def _expand(graph: ProgramGraph, x: ir.Value, sizes: Sequence, _: bool) -> ir.Value:
    kept = [1 if each == -1 else each for each in sizes]
    return graph.op("Expand", x, graph.sizes(kept))


@_translates(_ATEN.repeat_interleave.self_int)
def _repeat_interleave(
    graph: ProgramGraph, x: ir.Value, repeats: int, axis: int | None, _: Any
) -> ir.Value:
    _require(isinstance(repeats, int) and axis is not None)
    axis %= _rank(x)
    sizes = [-1 if at == axis else size for at, size in enumerate(x.shape)]
    _require(all(isinstance(size, int) for size in sizes))
    each = graph.op("Unsqueeze", x, graph.constant([axis + 1]))
    counts = [repeats if at == axis + 1 else 1 for at in range(_rank(x) + 1)]
    return graph.op(
        "Reshape", graph.op("Expand", each, graph.constant(counts)), graph.constant(sizes)
    )


@_translates(_ATEN.expand_as.default)
def _expand_as(graph: ProgramGraph, x: ir.Value, other: ir.Value) -> ir.Value:
    return graph.op("Expand", x, graph.op("Shape", other))


@_translates(_ATEN.cat.default)
def _cat(graph: ProgramGraph, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    _require(len({_rank(part) for part in parts}) == 1)
    return graph.op("Concat", *map(graph.operand, parts), axis=axis)


@_translates(_ATEN.stack.default)
def _stack(graph: ProgramGraph, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    parts = [graph.op("Unsqueeze", each, graph.constant([axis])) for each in parts]
    return graph.op("Concat", *parts, axis=axis)


@_translates(_ATEN.split.Tensor, _ATEN.split_with_sizes.default, _ATEN.chunk.default)
def _split(graph: ProgramGraph, x: ir.Value, _: Any, axis: int) -> tuple[ir.Value, ...]:
    sizes = [part.shape[axis] for part in graph.call.meta["val"]]
    _require(all(isinstance(size, int) for size in sizes))
    if len(sizes) == 1:
        return (graph.op("Identity", x),)
    return graph.op("Split", x, graph.constant(sizes), outputs=len(sizes), axis=axis)


@_translates(_ATEN.unbind.int)
def _unbind(graph: ProgramGraph, x: ir.Value, axis: int) -> tuple[ir.Value, ...]:
    count = len(graph.call.meta["val"])
    return tuple(graph.op("Gather", x, graph.constant(at), axis=axis) for at in range(count))


@_translates(_ATEN.slice.Tensor)
def _slice(
    graph: ProgramGraph, x: ir.Value, axis: int, start: Any, end: Any, step: int
) -> ir.Value:
    start, end = (0 if start is None else start), (_END if end is None else end)
    _require(isinstance(start, int) and isinstance(end, int))
    if start == 0 and end == _END and step == 1:
        return x
    numbers = [graph.constant([each]) for each in (start, end, axis, step)]
    return graph.op("Slice", x, *numbers)


@_translates(_ATEN.roll.default)
def _roll(graph: ProgramGraph, x: ir.Value, shifts: _Ints, axes: _Ints) -> ir.Value:
    axes = [axes] if isinstance(axes, int) else list(axes)
    sizes = [x.shape[axis] for axis in axes]
    _require(bool(axes) and all(isinstance(size, int) for size in sizes))
    for size, shift, axis in zip(sizes, _ints(shifts, len(axes)), axes, strict=True):
        indices = [(pixel - shift) % size for pixel in range(size)]
        x = graph.op("Gather", x, graph.constant(indices), axis=axis)
    return x


@_translates(_ATEN.unfold.default)
def _unfold(graph: ProgramGraph, x: ir.Value, axis: int, size: int, step: int) -> ir.Value:
    rank = _rank(x)
    axis %= rank
    length = x.shape[axis]
    _require(isinstance(length, int))
    starts = range(0, length - size + 1, step)
    indices = [[start + pixel for pixel in range(size)] for start in starts]
    windows = graph.op("Gather", x, graph.constant(indices), axis=axis)
    # ONNX puts a window's pixels behind the windows, torch at the end.
    order = [at for at in range(rank + 1) if at != axis + 1]
    return graph.op("Transpose", windows, perm=[*order, axis + 1])


@_translates(_ATEN.select.int)
def _select(graph: ProgramGraph, x: ir.Value, axis: int, index: int) -> ir.Value:
    return graph.op("Gather", x, graph.constant(index), axis=axis)


@_translates(_ATEN.index.Tensor)
def _index(graph: ProgramGraph, x: ir.Value, indices: Sequence[ir.Value | None]) -> ir.Value:
    places = [axis for axis, each in enumerate(indices) if each is not None]
    _require(len(places) == 1)
    index = indices[places[0]]
    _require(index.dtype in (ir.DataType.INT64, ir.DataType.INT32))  # no mask
    return graph.op("Gather", x, index, axis=places[0])


@_translates(_ATEN.pad.default)
def _pad(
    graph: ProgramGraph, x: ir.Value, pads: Sequence[int], mode: str, value: float | None
) -> ir.Value:
    kinds = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    kept = [0] * (_rank(x) - len(pads) // 2)
    begin, end = [*kept, *pads[-2::-2]], [*kept, *pads[::-2]]
    inputs = [x, graph.constant([*begin, *end])]
    if mode == "constant":
        inputs.append(graph.constant(value or 0.0, graph.dtype))
    return graph.op("Pad", *inputs, mode=kinds[mode])


@_translates(_ATEN.constant_pad_nd.default)
def _constant_pad(graph: ProgramGraph, x: ir.Value, pads: Sequence[int], value: float) -> ir.Value:
    return _pad(graph, x, pads, "constant", value)


@_translates(_ATEN.sym_size.int)
def _size(graph: ProgramGraph, x: ir.Value, axis: int) -> Number:
    axis %= _rank(x)
    return Number(graph.op("Shape", x, start=axis, end=axis + 1))
