"""The operators against ONNX's own test cases; those with many options against onnxruntime."""

import functools
import warnings
from collections import defaultdict

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import graphscale
from graphscale.convert.operators import TRANSLATIONS

from .compare import assert_matches, build, random

# Cases of ONNX that are left out, with the reason.
LEFT_OUT = {
    "attention": ("past", "softcap", "matmul", "window", "nonpad", "padded", "bf16", "fp16"),
    "gathernd": ("batch_dim1",),
    "lstm": ("peepholes",),
    "maxpool": ("argmax",),  # indices
    "reduce": ("empty_set",),  # of a maximum: torch has none
    "resize": ("scales_linear_align_corners", "scales_cubic_align_corners"),  # nor onnxruntime
    "roialign": ("mode_max",),
    "scatternd": ("multiply", "max", "min"),
    "": ("uint", "float8", "int4", "int2", "float4", "e8m0", "str", "expanded"),
}


@functools.cache
def backend_cases() -> dict[str, list]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    found = defaultdict(list)
    for case in cases:
        name = case.name.removeprefix("test_")
        if any(
            name.startswith(start) and any(part in name for part in parts)
            for start, parts in LEFT_OUT.items()
        ):
            continue
        arrays = [array for arrays in case.data_sets[0] for array in arrays]
        if len(case.model.graph.node) == 1 and all(
            isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in arrays
        ):
            found[case.model.graph.node[0].op_type].append(case)
    return found


def with_fixed_numbers(model: onnx.ModelProto, inputs: list) -> tuple[onnx.ModelProto, list]:
    """The model with initializers for those inputs that must be known before it runs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    node = model.graph.node[0]
    entry = TRANSLATIONS[node.domain, node.op_type]
    fixed = {node.input[i] for i in entry.numbers if i < len(node.input)}
    rest = []
    for value, array in zip(list(model.graph.input), inputs):
        if value.name in fixed:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            model.graph.input.remove(value)
        else:
            rest.append(array)
    return model, rest


@pytest.mark.parametrize("name", sorted(name for domain, name in TRANSLATIONS if domain == ""))
def test_onnx_cases(name):
    cases = backend_cases().get(name, [])
    for case in cases:
        inputs, expected = case.data_sets[0]
        model, inputs = with_fixed_numbers(case.model, inputs)
        if any(0 in x.shape for x in inputs):  # refused for all models, whatever the operator
            with pytest.raises(graphscale.GraphScaleError, match="a size of 0"):
                graphscale.load(model)
            continue
        outputs = graphscale.load(model).eval()(
            *[torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
        )
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for actual, wanted in zip(outputs, expected):
            actual = actual.detach().numpy()
            assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype), case.name
            np.testing.assert_allclose(actual, wanted, rtol=case.rtol, atol=1e-5, err_msg=case.name)


CONV = {"kernel_shape": [3, 2], "strides": [2, 1], "group": 2}
WINDOWS = [
    {},
    {"pads": [1, 2, 1, 2]},
    {"pads": [1, 0, 0, 1]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
]


@pytest.mark.parametrize("pads", WINDOWS)
@pytest.mark.parametrize("bias", [False, True])
def test_conv(pads, bias):
    weights = {"w": random(6, 2, 3, 2), **({"b": random(6)} if bias else {})}
    node = helper.make_node("Conv", ["x", *weights], ["y"], **CONV, **pads)
    assert_matches(build([node], weights), random(3, 4, 8, 8))


def test_dilated_conv():
    options = {"dilations": [1, 2], "pads": [2, 1, 0, 1]}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **options)
    assert_matches(build([node], {"w": random(6, 4, 3, 3)}), random(2, 4, 8, 8))


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_of_other_ranks(rank):
    weights = {"w": random(6, 4, *[3] * rank), "b": random(6)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 2 * rank)
    assert_matches(build([node], weights, ("N", 4, *[7] * rank)), random(2, 4, *[7] * rank))


@pytest.mark.parametrize(
    "options",
    [
        *WINDOWS[1:],
        {"output_padding": [1, 0]},
        {"pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        {"output_shape": [16, 8]},
        {"output_shape": [14, 9], "auto_pad": "SAME_UPPER"},
    ],
)
def test_conv_transpose(options):
    weights = {"w": random(4, 3, 3, 2), "b": random(6)}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **CONV, **options)
    assert_matches(build([node], weights), random(2, 4, 8, 8))


@pytest.mark.parametrize("pads", WINDOWS)
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("extra", [{}, {"count_include_pad": 1}, {"op": "MaxPool"}])
def test_pool(pads, ceil_mode, extra):
    extra = {"op": "AveragePool", **extra}
    op = extra.pop("op")
    kernel = {"kernel_shape": [3, 4], "strides": [2, 3]}
    node = helper.make_node(op, ["x"], ["y"], ceil_mode=ceil_mode, **kernel, **pads, **extra)
    model = build([node], shape=("N", 4, 8, 9), opset=19)
    assert_matches(model, random(2, 4, 8, 9))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "transform",
    [
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "half_pixel_symmetric",
        "tf_crop_and_resize",
    ],
)
@pytest.mark.parametrize("goal", [[1, 1, 2, 3], [1, 1, 0.6, 1.7], [2, 4, 5, 12]])
def test_resize(mode, transform, goal):
    whole = max(goal) > 3
    weights = {"roi": np.float32([0, 0, 0.1, 0.2, 1, 1, 0.9, 1.1])}
    weights["goal"] = np.array(goal, np.int64 if whole else np.float32)
    inputs = ["x", "roi", "", "goal"] if whole else ["x", "roi", "goal"]
    options = {"mode": mode, "coordinate_transformation_mode": transform}
    node = helper.make_node("Resize", inputs, ["y"], **options)
    assert_matches(build([node], weights, opset=19), random(2, 4, 8, 8))


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners"])
def test_resize_to_the_nearest(rounding, transform):
    options = {"nearest_mode": rounding, "coordinate_transformation_mode": transform}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **options)
    model = build([node], {"scales": np.float32([1, 1, 2, 1.5])}, opset=13)
    assert_matches(model, random(2, 4, 8, 8))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5])
def test_resize_with_antialias(mode, scale):
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, antialias=1)
    assert_matches(build([node], {"scales": np.float32([1, 1, scale, 0.6])}), random(2, 4, 8, 8))


@pytest.mark.parametrize(
    ("options", "c"),
    [
        ({}, (5,)),
        ({"transB": 1}, (1, 5)),
        ({"transA": 1, "alpha": 0.5}, (5,)),
        ({"beta": 2.0}, (3, 1)),
        ({"transB": 1, "alpha": 2.0, "beta": 0.0}, (5,)),
    ],
)
def test_gemm(options, c):
    rows = (4, 3) if options.get("transA") else (3, 4)
    weights = {"b": random(5, 4) if options.get("transB") else random(4, 5), "c": random(*c)}
    node = helper.make_node("Gemm", ["x", "b", "c"], ["y"], **options)
    assert_matches(build([node], weights, rows), random(*rows))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 1, 2, -1])
def test_softmax_over_flattened_axes(op, axis):
    options = {} if axis is None else {"axis": axis}
    model = build([helper.make_node(op, ["x"], ["y"], **options)], shape=("N", 4, 5), opset=11)
    assert_matches(model, random(2, 4, 5))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap", "constant"])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 0], [0, 1, 1, 0, 0, 2, 0, 0]])
def test_pad(mode, pads):
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    model = build([node], {"pads": np.array(pads)}, opset=19)
    assert_matches(model, random(2, 4, 8, 8))


def test_pad_that_crops():
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    model = build([node], {"pads": np.array([0, 0, -1, 2, 0, 0, -2, -1])})
    assert_matches(model, random(2, 4, 8, 8))


@pytest.mark.parametrize("step", [1, 2, -1, -3])
def test_slice_by_attributes_and_steps(step):
    ends = {"starts": np.array([6]), "ends": np.array([1 if step < 0 else 2**63 - 1])}
    weights = {**ends, "axes": np.array([2]), "steps": np.array([step])}
    node = helper.make_node("Slice", ["x", *weights], ["y"])
    assert_matches(build([node], weights), random(2, 4, 8, 8))


@pytest.mark.parametrize("end", [-1, -(2**63), 2**63 - 1])
def test_slice_from_the_smallest_number(end, recwarn):
    """Exporters write it for 'from the beginning'; torch warns of it."""
    numbers = {"starts": np.array([-(2**63)]), "ends": np.array([end]), "axes": np.array([2])}
    node = helper.make_node("Slice", ["x", *numbers], ["y"])
    assert_matches(build([node], numbers), random(2, 4, 8, 8))
    assert not [each for each in recwarn if "Truncating" in str(each.message)]


def test_the_forms_that_old_opsets_used():
    nodes = [
        helper.make_node("Slice", ["x"], ["a"], starts=[1, 0], ends=[7, -1], axes=[2, 3]),
        helper.make_node("Pad", ["a"], ["b"], pads=[0, 0, 1, 0, 0, 0, 1, 1], value=2.0),
        helper.make_node("Clip", ["b"], ["c"], min=-0.5, max=1.5),
        helper.make_node("Split", ["c"], ["d", "e"], axis=1, split=[1, 3]),
        helper.make_node("Upsample", ["e"], ["f"], scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
        helper.make_node("ReduceMean", ["f"], ["g"], axes=[2], keepdims=0),
        helper.make_node("Squeeze", ["d"], ["h"], axes=[1]),
        helper.make_node("Unsqueeze", ["h"], ["i"], axes=[0]),
        helper.make_node("TopK", ["g"], ["j", "k"], k=2),
        helper.make_node("Dropout", ["i"], ["l"], ratio=0.3),
    ]
    outputs = ("l", "j")
    assert_matches(build(nodes, opset=7, outputs=outputs), random(2, 4, 8, 8))
