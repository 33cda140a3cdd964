"""Forms in which graphs hold shapes and weights, one by one: each shrinks, runs and grows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphscale
from tests.passes.random_networks import RandomNetwork
from tests.passes.test_random_networks import (
    check_growth,
    check_runs,
    check_shrinks_back,
    check_unchanged,
    run,
    without_weights,
)
from tests.zoo.handmade import Graph

Interfaces = dict[str, tuple[str, tuple[int, ...], int]]
FORMS: dict[str, Callable[[], tuple[onnx.ModelProto, Interfaces]]] = {}


def form(function: Callable) -> Callable:
    FORMS[function.__name__] = function
    return function


def forms(*cases: object) -> Callable:
    """The same form for several arguments."""

    def register(function: Callable) -> Callable:
        for case in cases:
            FORMS[f"{function.__name__}[{case}]"] = lambda case=case: function(case)
        return function

    return register


def stem(g: Graph, channels: int = 8, stride: int = 1) -> str:
    """A 3×3 convolution on the image, which has 3×32×32 pixels."""
    x = g.conv("image", 3, channels, 3, 3, pads=[1] * 4, strides=[stride] * 2)
    return g.op("Relu", x)


def ints(g: Graph, *values: int) -> str:
    return g.constant(f"ints_{len(g.weights)}", np.asarray(values, np.int64))


def scalar(g: Graph, value: int) -> str:
    return g.constant(f"ints_{len(g.weights)}", np.int64(value))


def finish(g: Graph, output: str, shape: list, interfaces: Interfaces | None = None):
    return g.model(["n", 3, 32, 32], output, shape), interfaces or {}


def classify(g: Graph, x: str, channels: int):
    """Global average, then a fully-connected layer."""
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return finish(g, g.gemm(x, channels, 5), ["n", 5])


def last_fc(g: Graph) -> str:
    return next(t.name for t in reversed(g.weights) if t.name.endswith(".weight"))


# --- Reshape --------------------------------------------------------------------------------------


@forms("zero", "rows", "minus", "view", "shape_start", "scatter", "constant_of_shape")
def flatten_by_reshape(how: str):
    g = Graph(17)
    x = g.op("MaxPool", stem(g, 4), kernel_shape=[4, 4], strides=[4, 4])
    rows = 4 * 8 * 8
    if how == "zero":
        shape = ints(g, 0, rows)
    elif how == "rows":
        shape = ints(g, -1, rows)
    elif how == "minus":
        shape = ints(g, 0, -1)
    elif how == "view":
        count = g.op("Gather", g.op("Shape", x), scalar(g, 0), axis=0)
        shape = g.op("Concat", g.op("Unsqueeze", count, ints(g, 0)), ints(g, rows), axis=0)
    elif how == "shape_start":
        shape = g.op("Concat", g.op("Shape", x, start=0, end=1), ints(g, -1), axis=0)
    elif how == "scatter":
        sizes = g.op("Shape", x)
        head = g.op("Slice", sizes, ints(g, 0), ints(g, 1), ints(g, 0))
        tail = g.op("Slice", sizes, ints(g, 1), ints(g, 4), ints(g, 0))
        shape = g.op("Concat", head, g.op("ReduceProd", tail, axes=[0], keepdims=1), axis=0)
    else:
        value = helper.make_tensor("v", TensorProto.INT64, [1], [-1])
        minus = g.op("ConstantOfShape", ints(g, 1), value=value)
        shape = g.op("Concat", g.op("Shape", x, start=0, end=1), minus, axis=0)
    y = g.gemm(g.op("Reshape", x, shape), rows, 5)
    return finish(g, y, ["n", 5], {last_fc(g): (x, (0, 1, 2), 1)})


@form
def two_layers_read_one_flattened_map():
    g = Graph()
    x = g.op("MaxPool", stem(g, 4), kernel_shape=[4, 4], strides=[4, 4])
    flat = g.op("Flatten", x)
    one = g.gemm(flat, 256, 5)
    first = last_fc(g)
    two = g.gemm(flat, 256, 5)
    interfaces = dict.fromkeys((first, last_fc(g)), (x, (0, 1, 2), 1))
    return finish(g, g.op("Add", one, two), ["n", 5], interfaces)


@form
def activation_and_scale_behind_flatten():
    g = Graph()
    x = g.op("MaxPool", stem(g, 4), kernel_shape=[4, 4], strides=[4, 4])
    flat = g.op("Sigmoid", g.op("Mul", g.op("Flatten", x), g.constant("two", np.float32(2))))
    y = g.gemm(flat, 256, 5)
    return finish(g, y, ["n", 5], {last_fc(g): (x, (0, 1, 2), 1)})


# --- pools and means ------------------------------------------------------------------------------


@forms("[2,3]", "[-1,-2]", "[-2,-1]", "[3]")
def means_over_axes(axes: str):
    g = Graph()
    x = g.op("ReduceMean", stem(g), axes=[int(a) for a in axes.strip("[]").split(",")], keepdims=1)
    x = g.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    return finish(g, g.gemm(x, 8, 5), ["n", 5])


@forms("ReduceMax", "ReduceSum", "ReduceL2", "GlobalMaxPool")
def other_global_pools(kind: str):
    g = Graph(11)
    x = stem(g)
    x = g.op(kind, x, **({} if kind.startswith("Global") else {"axes": [2, 3], "keepdims": 1}))
    return finish(g, g.gemm(g.op("Flatten", x), 8, 5), ["n", 5])


@forms("AveragePool", "MaxPool", "LpPool")
def pool_over_the_whole_map(kind: str):
    g = Graph()
    x = g.op(kind, stem(g, stride=2), kernel_shape=[16, 16])
    return finish(g, g.gemm(g.op("Flatten", x), 8, 5), ["n", 5])


@form
def adaptive_pool_to_two_by_two():
    """AdaptiveAvgPool2d(2): windows that cover the map without overlap."""
    g = Graph()
    x = g.op("AveragePool", stem(g), kernel_shape=[16, 16], strides=[16, 16])
    y = g.gemm(g.op("Flatten", x), 32, 5)
    return finish(g, y, ["n", 5], {last_fc(g): (x, (0, 1, 2), 1)})


@forms("SAME_UPPER", "SAME_LOWER", "VALID")
def pool_with_auto_pad(auto: str):
    g = Graph()
    x = g.op("MaxPool", stem(g), kernel_shape=[3, 3], strides=[2, 2], auto_pad=auto)
    x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[1, 1], auto_pad=auto)
    return classify(g, g.conv(x, 8, 8, 3, 3, auto_pad=auto), 8)


# --- attention and gates --------------------------------------------------------------------------


@form
def squeeze_and_excitation_by_gemm():
    g = Graph()
    x = stem(g)
    y = g.op("Squeeze", g.op("GlobalAveragePool", x), ints(g, 2, 3))
    y = g.op("Sigmoid", g.gemm(g.op("Relu", g.gemm(y, 8, 2)), 2, 8))
    y = g.op("Unsqueeze", y, ints(g, 2, 3))
    return classify(g, g.conv(g.op("Mul", x, y), 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def squeeze_and_excitation_expanded():
    """`y.expand_as(x)` as torch writes it."""
    g = Graph()
    x = stem(g)
    y = g.op("Sigmoid", g.conv(g.op("GlobalAveragePool", x), 8, 8, 1, 1))
    y = g.op("Expand", y, g.op("Shape", x))
    return classify(g, g.conv(g.op("Mul", x, y), 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def spatial_attention():
    g = Graph()
    x = stem(g)
    mean = g.op("ReduceMean", x, axes=[1], keepdims=1)
    most = g.op("ReduceMax", x, axes=[1], keepdims=1)
    y = g.op("Concat", mean, most, axis=1)
    y = g.op("Sigmoid", g.conv(y, 2, 1, 7, 7, pads=[3] * 4))
    return classify(g, g.conv(g.op("Mul", x, y), 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def non_local_block():
    g = Graph()
    x = g.op("MaxPool", stem(g), kernel_shape=[2, 2], strides=[2, 2])
    query, key, value = (
        g.op("Reshape", g.conv(x, 8, 4, 1, 1), ints(g, 0, 4, -1)) for _ in range(3)
    )
    weights = g.op(
        "Softmax", g.op("MatMul", g.op("Transpose", query, perm=[0, 2, 1]), key), axis=-1
    )
    y = g.op("MatMul", value, g.op("Transpose", weights, perm=[0, 2, 1]))
    y = g.op("Reshape", y, ints(g, 0, 4, 16, 16))
    return classify(g, g.op("Add", x, g.conv(y, 4, 8, 1, 1)), 8)


# --- normalisation --------------------------------------------------------------------------------


@form
def group_norm_by_reshapes():
    g = Graph()
    x = stem(g)
    y = g.op("Reshape", x, ints(g, 0, 2, -1))
    ones, zeros = (g.constant(f"g.{n}", np.full(2, n, np.float32)) for n in (1, 0))
    y = g.op("InstanceNormalization", y, ones, zeros)
    y = g.op("Reshape", y, g.op("Shape", x))
    y = g.op("Mul", y, g.normal("gn.weight", 8, 1, 1))
    return classify(g, g.conv(y, 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def layer_norm_of_channels_last():
    g = Graph()
    x = g.op("Transpose", stem(g), perm=[0, 2, 3, 1])
    x = g.op("LayerNormalization", x, g.normal("ln.weight", 8), g.normal("ln.bias", 8), axis=-1)
    x = g.op("Transpose", x, perm=[0, 3, 1, 2])
    return classify(g, g.conv(x, 8, 8, 3, 3, pads=[1] * 4), 8)


@forms("LRN", "MeanVarianceNormalization", "LpNormalization")
def other_normalisations(kind: str):
    g = Graph()
    options = {
        "LRN": {"size": 5},
        "LpNormalization": {"axis": 1},
        "MeanVarianceNormalization": {"axes": [2, 3]},
    }[kind]
    return classify(g, g.conv(g.op(kind, stem(g), **options), 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def operators_of_onnxruntime():
    g = Graph()
    weight, bias = g.normal("fused.weight", 8, 8, 3, 3), g.normal("fused.bias", 8)
    options = {"pads": [1] * 4, "activation": "Relu", "domain": "com.microsoft"}
    x = g.op("FusedConv", stem(g), weight, bias, **options)
    x = g.op("Gelu", x, domain="com.microsoft")
    x = g.gemm(g.op("Flatten", g.op("GlobalAveragePool", x)), 8, 5)
    graph = helper.make_graph(
        g.nodes,
        "fused",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", 5])],
        g.weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), {}


# --- crops, pads, strides -------------------------------------------------------------------------


@forms("ends", "negative", "huge", "one_axis")
def crop_of_a_border(how: str):
    g = Graph()
    x = stem(g)
    starts, ends, axes = {
        "ends": ([2, 2], [30, 30], [2, 3]),
        "negative": ([-30, 2], [-2, -2], [2, 3]),
        "huge": ([2, 2], [2**63 - 1, 2**31 - 1], [-2, -1]),
        "one_axis": ([3], [31], [3]),
    }[how]
    x = g.op("Slice", x, ints(g, *starts), ints(g, *ends), ints(g, *axes))
    return classify(g, g.conv(x, 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def crop_to_the_size_of_another_map():
    """`up[:, :, :h, :w]` with h and w from the other map's shape, as in a U-Net on odd sizes."""
    g = Graph()
    x = stem(g)
    y = g.conv(x, 8, 8, 3, 3, strides=[2, 2], pads=[1] * 4)
    weight = g.normal("up.weight", 8, 8, 4, 4)
    y = g.op("ConvTranspose", y, weight, strides=[2, 2])  # 34 pixels
    sizes = g.op("Slice", g.op("Shape", x), ints(g, 2), ints(g, 4), ints(g, 0))
    y = g.op("Slice", y, ints(g, 0, 0), sizes, ints(g, 2, 3))
    return classify(g, g.conv(g.op("Concat", x, y, axis=1), 16, 8, 3, 3, pads=[1] * 4), 8)


@form
def focus_slices():
    """Every second row and column, four times, side by side: the Focus layer of detectors."""
    g = Graph()
    x = stem(g)
    parts = []
    for row in (0, 1):
        for column in (0, 1):
            y = g.op("Slice", x, ints(g, row), ints(g, 2**31 - 1), ints(g, 2), ints(g, 2))
            y = g.op("Slice", y, ints(g, column), ints(g, 2**31 - 1), ints(g, 3), ints(g, 2))
            parts.append(y)
    x = g.op("Concat", *parts, axis=1)
    return classify(g, g.conv(x, 32, 8, 3, 3, pads=[1] * 4), 8)


@forms("constant", "reflect", "edge", "negative", "axes")
def pad_node(mode: str):
    g = Graph(18)
    x = stem(g)
    if mode == "axes":
        x = g.op("Pad", x, ints(g, 2, 2, 2, 2), "", ints(g, 2, 3))
    elif mode == "negative":
        x = g.op("Pad", x, ints(g, 0, 0, -2, -2, 0, 0, -2, -2))
    else:
        x = g.op("Pad", x, ints(g, 0, 0, 2, 2, 0, 0, 2, 2), mode=mode)
    x = g.conv(x, 8, 8, 5, 5)
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return finish(g, g.gemm(x, 8, 5), ["n", 5])


@form
def pads_from_a_computed_vector():
    """F.pad as torch's older exporter writes it: ConstantOfShape, Concat, Reshape, Slice, Cast."""
    g = Graph(11)
    x = stem(g)
    zeros = g.op(
        "ConstantOfShape", ints(g, 4), value=helper.make_tensor("v", TensorProto.INT64, [1], [0])
    )
    pads = g.op("Concat", ints(g, 2, 2, 2, 2), zeros, axis=0)  # from the last dimension on
    pads = g.op("Reshape", pads, ints(g, -1, 2))
    low = scalar(g, -(2**63) + 1)
    pads = g.op(
        "Slice", pads, ints(g, -1), g.op("Reshape", low, ints(g, 1)), ints(g, 0), ints(g, -1)
    )
    pads = g.op("Reshape", g.op("Transpose", pads, perm=[1, 0]), ints(g, -1))
    x = g.op("Pad", x, g.op("Cast", pads, to=TensorProto.INT64), mode="constant")
    return classify(g, g.conv(x, 8, 8, 5, 5), 8)


# --- up-sampling ----------------------------------------------------------------------------------


def down(g: Graph) -> tuple[str, str]:
    x = stem(g)
    return x, g.op("Relu", g.conv(x, 8, 8, 3, 3, strides=[2, 2], pads=[1] * 4))


def up(g: Graph, x: str, y: str):
    return classify(g, g.conv(g.op("Concat", x, y, axis=1), 16, 8, 3, 3, pads=[1] * 4), 8)


@forms("doubled", "floored", "other", "mixed", "cast")
def resize_to_computed_sizes(how: str):
    g = Graph()
    x, y = down(g)
    sizes = g.op("Shape", y)
    if how == "doubled":
        wanted = g.op("Mul", sizes, ints(g, 1, 1, 2, 2))
    elif how == "floored":
        factors = g.constant("factors", np.array([1, 1, 2, 2], np.float32))
        floats = g.op("Mul", g.op("Cast", sizes, to=TensorProto.FLOAT), factors)
        wanted = g.op("Cast", g.op("Floor", floats), to=TensorProto.INT64)
    elif how == "other":
        head = g.op("Slice", sizes, ints(g, 0), ints(g, 2), ints(g, 0))
        tail = g.op("Slice", g.op("Shape", x), ints(g, 2), ints(g, 4), ints(g, 0))
        wanted = g.op("Concat", head, tail, axis=0)
    elif how == "mixed":
        head = g.op("Slice", sizes, ints(g, 0), ints(g, 2), ints(g, 0))
        wanted = g.op("Concat", head, ints(g, 32), ints(g, 32), axis=0)
    else:
        numbers = g.constant("numbers", np.array([32, 32], np.float32))
        tail = g.op("Cast", numbers, to=TensorProto.INT64)
        head = g.op("Slice", sizes, ints(g, 0), ints(g, 2), ints(g, 0))
        wanted = g.op("Concat", head, tail, axis=0)
    return up(g, x, g.op("Resize", y, "", "", wanted, mode="linear"))


@forms("scales", "computed_scales", "axes")
def resize_by_scales(how: str):
    g = Graph(18)
    x, y = down(g)
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    if how == "scales":
        scales = g.constant("factors", np.array([1, 1, 2, 2], np.float32))
    elif how == "axes":
        scales = g.constant("factors", np.array([2, 2], np.float32))
        options["axes"] = [2, 3]
    else:
        after = g.op("Cast", ints(g, 32, 32), to=TensorProto.FLOAT)
        before = g.op("Slice", g.op("Shape", y), ints(g, 2), ints(g, 4), ints(g, 0))
        ratio = g.op("Div", after, g.op("Cast", before, to=TensorProto.FLOAT))
        ones = g.constant("ones", np.ones(2, np.float32))
        scales = g.op("Concat", ones, ratio, axis=0)
    y = g.op("Resize", y, "", scales, **options)
    x = g.conv(g.op("Concat", x, y, axis=1), 16, 8, 3, 3, pads=[1] * 4)
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return finish(g, g.gemm(x, 8, 5), ["n", 5])


@form
def pooled_branch_spread_over_the_map():
    """The image-wide branch of ASPP: one pixel resized to the map."""
    g = Graph()
    x = stem(g)
    y = g.conv(g.op("GlobalAveragePool", x), 8, 8, 1, 1)
    sizes = g.op("Concat", g.op("Shape", y, end=2), g.op("Shape", x, start=2), axis=0)
    y = g.op("Resize", y, "", "", sizes, mode="linear")
    return up(g, x, y)


@form
def pyramid_pooling():
    """PSPNet: means over a grid of parts, resized back."""
    g = Graph()
    x = stem(g)
    parts = [x]
    for size in (16, 8):
        y = g.op("AveragePool", x, kernel_shape=[size, size], strides=[size, size])
        sizes = g.op("Concat", g.op("Shape", y, end=2), g.op("Shape", x, start=2), axis=0)
        parts.append(g.op("Resize", y, "", "", sizes, mode="linear"))
    x = g.op("Concat", *parts, axis=1)
    return classify(g, g.conv(x, 24, 8, 3, 3, pads=[1] * 4), 8)


@forms("pads", "output_shape", "SAME_UPPER", "SAME_LOWER", "NOTSET", "group", "depthwise", "odd")
def transposed_convolution(how: str):
    g = Graph()
    x, y = down(g)
    group = {"group": 2, "depthwise": 8}.get(how, 1)
    options: dict = {"strides": [2, 2], "group": group}
    kernel = 4
    if how == "output_shape":
        options["output_shape"] = [32, 32]
    elif how == "NOTSET" or how.startswith("SAME"):
        kernel = 3  # one pixel of padding in all, on the side that auto_pad says
        options.update(auto_pad=how, output_shape=[32, 32])
    elif how == "odd":
        kernel = 3
        options.update(pads=[1] * 4, output_padding=[1, 1])
    else:
        options["pads"] = [1] * 4
    weight = g.normal("up.weight", 8, 8 // group, kernel, kernel)
    y = g.op("ConvTranspose", y, weight, g.normal("up.bias", 8), **options)
    return up(g, x, y)


@form
def pixel_shuffle():
    g = Graph()
    x, y = down(g)
    y = g.op("DepthToSpace", g.conv(y, 8, 32, 3, 3, pads=[1] * 4), blocksize=2, mode="CRD")
    return up(g, x, y)


# --- tables, sharing, inputs and outputs ----------------------------------------------------------


@form
def several_outputs():
    g = Graph()
    x, y = down(g)
    model, _ = up(g, x, g.op("Resize", y, "", g.constant("f", np.array([1, 1, 2, 2], np.float32))))
    model.graph.output.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", 8, 16, 16]))
    return model, {}


@form
def siamese_inputs():
    """Two images through the same weights."""
    g = Graph()
    weight, bias = g.normal("conv.weight", 8, 3, 5, 5), g.normal("conv.bias", 8)
    maps = [g.op("Conv", name, weight, bias, pads=[2] * 4) for name in ("image", "other")]
    x = g.op("Concat", *maps, axis=1)
    x = g.op("Flatten", g.op("GlobalAveragePool", g.conv(x, 16, 8, 3, 3, pads=[1] * 4)))
    y = g.gemm(x, 8, 5)
    graph = helper.make_graph(
        g.nodes,
        "siamese",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, 32, 32])
            for n in ("image", "other")
        ],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", 5])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), {}


@form
def one_pixel_kernel_with_padding():
    g = Graph()
    x = g.conv(stem(g), 8, 8, 1, 1, pads=[1] * 4)
    return classify(g, g.conv(x, 8, 8, 3, 3, pads=[1] * 4), 8)


@form
def kernel_larger_than_its_map():
    g = Graph()
    x = g.op("MaxPool", stem(g), kernel_shape=[8, 8], strides=[8, 8])
    return classify(g, g.conv(x, 8, 8, 7, 7, pads=[3] * 4), 8)


@form
def a_deep_stride():
    """Down to one pixel by strides alone, then on with padded kernels."""
    g = Graph()
    x = "image"
    for i in range(6):
        x = g.op("Relu", g.conv(x, 8 if i else 3, 8, 3, 3, strides=[2, 2], pads=[1] * 4))
    return classify(g, g.conv(x, 8, 8, 3, 3, pads=[1] * 4), 8)


def loop(target: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The pre-train and the grown network, after all that needs no knowledge of the weights."""
    pretrain = graphscale.shrink(target, init="resize")
    check_runs(target, pretrain)
    grown = graphscale.grow(pretrain)
    assert without_weights(grown) == without_weights(target)
    check_shrinks_back(pretrain, grown, {})
    return pretrain, grown


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    target, interfaces = FORMS[name]()
    onnx.checker.check_model(target, full_check=True)
    network = RandomNetwork(0, target, interfaces)
    pretrain, grown = loop(target)
    maps = run(pretrain, 1, inner=True), run(target, 1, inner=True)
    check_growth(network, pretrain, grown, maps)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_nothing_shrinks_computes_the_same(name: str) -> None:
    target, _ = FORMS[name]()
    check_unchanged(target, (32, 32))


# --- what is refused ------------------------------------------------------------------------------


def nearest_by_expanding():
    """Reshape, Expand, Reshape: how a nearest-neighbour doubling may be written."""
    g = Graph()
    x, y = down(g)
    y = g.op("Reshape", y, ints(g, 0, 8, 16, 1, 16, 1))
    y = g.op("Expand", y, ints(g, 1, 8, 16, 2, 16, 2))
    return up(g, x, g.op("Reshape", y, ints(g, 0, 8, 32, 32)))


def picks_one_row():
    g = Graph()
    x = g.op("Gather", stem(g), scalar(g, 3), axis=2)
    return finish(g, g.op("ReduceMean", x, axes=[2], keepdims=0), ["n", 8])


@pytest.mark.parametrize("make", [nearest_by_expanding, picks_one_row])
def test_what_cannot_be_rescaled_is_refused_by_the_nodes_name(make: Callable) -> None:
    target, _ = make()
    with pytest.raises(
        graphscale.GraphScaleError, match=r"node '\w+' \(\w+\) .* graphscale cannot"
    ):
        graphscale.shrink(target)


def test_an_if_over_maps_is_refused_by_its_name() -> None:
    g = Graph()
    x = g.op("Identity", stem(g))
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, [x], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, 32, 32])],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    size = g.op("ReduceMax", g.op("Cast", "image", to=TensorProto.INT64), keepdims=0)
    y = g.op("If", g.op("Equal", size, size), **branches)
    target, _ = classify(g, y, 8)
    with pytest.raises(graphscale.GraphScaleError, match=r"operator If has no rule for heights"):
        graphscale.shrink(target)
