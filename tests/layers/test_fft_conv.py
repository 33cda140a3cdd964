"""FFTConv against torch's convolutions and ONNX's own test cases of Conv."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from torch.nn import functional

import graphscale
from graphscale import GraphScaleError
from graphscale.layers import FFTConv1d, FFTConv2d
from graphscale.layers.fft_conv import fft_conv, fft_conv_grad_input, fft_conv_grad_weight

CONVOLUTIONS = [None, functional.conv1d, functional.conv2d, functional.conv3d]


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@st.composite
def problems(draw):
    spatial = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=spatial, max_size=spatial))

    kernel, dilations = each(1, 4), each(1, 2)
    pads, strides = each(0, 3), each(1, 3)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    image = [max(1, s - 2 * p) + draw(st.integers(0, 5)) for s, p in zip(span, pads)]
    return {
        "x": (draw(st.integers(0, 2)), groups * draw(st.integers(1, 3)), *image),
        "filters": groups * draw(st.integers(1, 3)),
        "kernel": kernel,
        "groups": groups,
        "dilations": dilations,
        "pads": pads,
        "strides": strides,
    }


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problems())
def test_equals_torch(problem):
    """The output, and the gradients to x, weight and bias."""
    torch.manual_seed(0)
    groups, spatial = problem["groups"], len(problem["kernel"])
    x = random(*problem["x"])
    weight = random(problem["filters"], x.shape[1] // groups, *problem["kernel"])
    bias = random(problem["filters"])
    wanted = CONVOLUTIONS[spatial](
        x, weight, bias, problem["strides"], problem["pads"], problem["dilations"], groups
    )
    got = fft_conv(
        x, weight, bias, problem["dilations"], groups, [], problem["pads"] * 2, problem["strides"]
    )
    torch.testing.assert_close(got, wanted)
    grad = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(got, [x, weight, bias], grad),
        torch.autograd.grad(wanted, [x, weight, bias], grad),
    ):
        torch.testing.assert_close(one, other)


def test_gradients_and_their_gradients():
    x, weight, bias = random(2, 4, 6, 5), random(6, 2, 3, 2), random(6)
    attributes = ([1, 2], 2, [], [1, 0, 0, 1], [2, 1])
    assert torch.autograd.gradcheck(lambda *a: fft_conv(*a, *attributes), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda *a: fft_conv(*a, None, *attributes), (x, weight))


def test_asymmetric_pads_and_kernel_as_large_as_the_image():
    x, weight = random(1, 2, 5, 4), random(3, 2, 5, 4)
    torch.testing.assert_close(fft_conv(x, weight), functional.conv2d(x, weight))
    padded = functional.pad(x, (1, 2, 0, 3))
    got = fft_conv(x, weight, None, [], 1, [], [0, 1, 3, 2])
    torch.testing.assert_close(got, functional.conv2d(padded, weight))
    assert fft_conv(random(1, 2, 1, 1), random(3, 2, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad_has_gradients(auto_pad):
    x, weight = random(1, 2, 6, 5), random(2, 2, 3, 2)
    options = {"auto_pad": auto_pad, "strides": [2, 1]}
    assert torch.autograd.gradcheck(lambda *a: fft_conv(*a, **options), (x, weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision(dtype, tolerance):
    x, weight, bias = random(2, 8, 9, 9), random(4, 8, 3, 3), random(4)
    wanted = functional.conv2d(x, weight, bias)
    got = fft_conv(x.to(dtype), weight.to(dtype), bias.to(dtype))
    assert got.dtype == dtype
    assert (got.double() - wanted).norm() < tolerance * wanted.norm()


def test_non_contiguous_and_misaligned():
    x = random(2 * 3 * 14 * 7 + 1).detach()[1:].view(2, 3, 14, 7)[:, :, ::2].transpose(2, 3)
    weight = random(4, 3, 2, 2).detach().transpose(2, 3)
    torch.testing.assert_close(fft_conv(x, weight), functional.conv2d(x, weight))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 4, 8, 8), (4, 3, 3, 3)), "channels of x"),
        (((1, 4, 8, 8), (4, 4, 3)), "'W' has 3 dimensions"),
        (((1, 4, 2, 8), (4, 4, 3, 3)), "the kernel needs 3"),
        (((1, 4), (4, 4)), "at least 3"),
        (((1, 4, 8), (3, 2, 3), None, [], 2), "multiple of 2 groups"),
        (((1, 4, 8), (3, 4, 3), (4,)), "lengths of B and W"),
        (((1, 4, 8), (3, 4, 3), None, [], 0), "group is 0"),
        (((1, 4, 8), (3, 4, 3), None, [0]), "dilations is"),
        (((1, 4, 8), (3, 4, 3), None, [1, 1]), "dilations has 2 entries"),
        (((1, 4, 8), (3, 4, 3), None, [], 1, [2]), "kernel_shape and the kernel"),
        (((1, 4, 8), (3, 4, 3), None, [], 1, [], [-1, 0]), "pads is"),
        (((1, 4, 8), (3, 4, 3), None, [], 1, [], [2**62, 2**62]), "pads is"),
        (((1, 4, 8), (3, 4, 3), None, [], 1, [], [], [0]), "strides is"),
        (((1, 4, 8), (3, 4, 3), None, [], 1, [], [], [], "SAME"), "auto_pad is 'SAME'"),
    ],
)
def test_wrong_arguments(arguments, message):
    tensors = [random(*a) if isinstance(a, tuple) else a for a in arguments]
    with pytest.raises(GraphScaleError, match=f"FFTConv: .*{message}"):
        fft_conv(*tensors)


def test_opcheck():
    x, weight, bias = random(2, 4, 6), random(6, 4, 3), random(6)
    torch.library.opcheck(torch.ops.graphscale.fft_conv.default, (x, weight, bias))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": 2, "padding": (2, 0), "dilation": (1, 2), "groups": 2},
        {"kernel_size": (4, 3), "padding": "same", "bias": False},
        {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    ],
)
def test_layer_equals_torchs(options):
    layer, relative = FFTConv2d(4, 6, **options), torch.nn.Conv2d(4, 6, **options)
    layer.load_state_dict(relative.state_dict())
    for x in (torch.randn(2, 4, 9, 8), torch.randn(4, 9, 8)):
        torch.testing.assert_close(layer(x), relative(x))
    with pytest.raises(GraphScaleError, match="FFTConv2d: x has 2 dimensions"):
        layer(torch.randn(4, 9))


@pytest.mark.parametrize(
    ("layer", "x", "other"),
    [
        (FFTConv1d(3, 4, 5, stride=2, padding=2), (2, 3, 20), (4, 3, 31)),
        (FFTConv2d(4, 6, 3, padding="same", dilation=2, bias=False), (2, 4, 9, 8), (1, 4, 30, 17)),
        (FFTConv2d(4, 4, (5, 3), padding=(0, 1), groups=4), (2, 4, 9, 8), (3, 4, 9, 20)),
    ],
)
def test_export(check_export, layer, x, other):
    dynamic = {0: torch.export.Dim("N"), len(x) - 1: torch.export.Dim("W", min=6)}
    if len(x) == 4:
        dynamic[2] = torch.export.Dim("H", min=6)
    check_export(
        layer,
        torch.randn(x),
        operator="FFTConv",
        others=[(torch.randn(other),)],
        dynamic_shapes=[dynamic],
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("strides", "dilations", "pads"),
    [
        ([1, 1], [1, 1], [0, 0, 0, 0]),
        ([2, 3], [1, 2], [1, 0, 2, 1]),
        ([3, 2], [2, 1], [0, 2, 0, 1]),
    ],
)
def test_operators_and_bodies(check_operator, groups, strides, dilations, pads):
    x, weight = torch.randn(2, 4, 10, 9), torch.randn(6, 4 // groups, 3, 2)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups}
    y = fft_conv(x, weight, **attributes)
    check_operator("FFTConv", x, weight, torch.randn(6), **attributes)
    check_operator("FFTConv", x, weight, None, **attributes)
    grad = torch.randn_like(y)
    check_operator("FFTConvGradInput", grad, weight, x, **attributes)
    check_operator("FFTConvGradWeight", grad, x, weight, **attributes)


def test_gradients_are_adjoint():
    x, weight = random(2, 3, 40, 33), random(4, 3, 7, 6)
    attributes = ([1, 2], 1, [], [3, 1, 2, 4], [1, 2])
    y = fft_conv(x, weight, None, *attributes)
    grad = torch.randn_like(y)
    inner = (y * grad).sum()
    grad_x = fft_conv_grad_input(grad, weight, x, *attributes)
    grad_weight = fft_conv_grad_weight(grad, x, weight, *attributes)
    torch.testing.assert_close((x * grad_x).sum(), inner)
    torch.testing.assert_close((weight * grad_weight).sum(), inner)


NEWEST_OPSET = 26


def conv_cases():
    cases = [
        *load_model_tests(kind="node"),
        *load_model_tests(kind="simple"),
        *load_model_tests(kind="pytorch-converted"),
        *load_model_tests(kind="pytorch-operator"),
    ]
    for case in cases:
        if case.model is not None:
            model = case.model
        elif case.model_dir is not None:
            model = onnx.load(f"{case.model_dir}/model.onnx")
        else:
            continue
        if any(node.op_type == "Conv" for node in model.graph.node):
            yield pytest.param(case, model, id=case.name)


def data_sets(case):
    if case.data_sets is not None:
        yield from case.data_sets
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        sets = []
        for kind in ("input", "output"):
            files = sorted(folder.glob(f"{kind}_*.pb"))
            sets.append([numpy_helper.to_array(onnx.load_tensor(str(f))) for f in files])
        yield sets


@pytest.mark.parametrize(("case", "model"), list(conv_cases()))
def test_onnx_backend_tests_of_conv(case, model):
    retargeted = onnx.ModelProto.FromString(model.SerializeToString())
    for node in retargeted.graph.node:
        if node.op_type == "Conv":
            node.op_type, node.domain = "FFTConv", "graphscale"
    retargeted.opset_import.add(domain="graphscale", version=1)
    retargeted.ir_version = min(retargeted.ir_version, 10)
    for opset in retargeted.opset_import:  # onnxruntime runs no opset that is still being written
        if opset.domain == "":
            opset.version = min(opset.version, NEWEST_OPSET)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(graphscale.get_library_path())
    session = onnxruntime.InferenceSession(
        retargeted.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for inputs, outputs in data_sets(case):
        names = [value.name for value in session.get_inputs()]
        for got, wanted in zip(session.run(None, dict(zip(names, inputs))), outputs, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "weight", "groups", "pads"),
    [
        ((2, 16, 40, 37), (24, 16, 9, 9), 1, 4),
        ((1, 32, 48, 48), (32, 1, 13, 13), 32, 6),
        ((2, 8, 900), (8, 8, 65), 1, 32),
    ],
)
def test_large_kernels_in_single_precision(tmp_path, x, weight, groups, pads):
    """Sizes for FFTs: in torch with all gradients, in onnxruntime with prepacked weights."""
    spatial = len(x) - 2
    x, weight = random(*x, dtype=torch.float32), random(*weight, dtype=torch.float32)
    exact = CONVOLUTIONS[spatial](x.double(), weight.double(), None, 1, pads, 1, groups)
    got = fft_conv(x, weight, None, [], groups, [], [pads] * 2 * spatial)
    grad = torch.randn_like(got)
    results = [got, *torch.autograd.grad(got, [x, weight], grad)]
    wanted = [exact, *torch.autograd.grad(exact, [x, weight], grad.double())]
    for one, other in zip(results, wanted):
        assert (one.double() - other).abs().max() < 2e-6 * other.abs().max()

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight.detach())

        def forward(self, x):
            return fft_conv(x, self.weight, None, [], groups, [], [pads] * 2 * spatial)

    path = tmp_path / "model.onnx"
    graphscale.export(Layer().eval(), (x.detach(),), path)
    session = graphscale.session(path)
    for _ in range(2):
        (again,) = session.run(None, {"x": x.detach().numpy()})
        np.testing.assert_allclose(again, got.detach().numpy(), rtol=1e-4, atol=1e-4)


ALGORITHMS = ["auto", "direct", "winograd 6x6", "winograd 4x4", "dense 16x24", "per_channel 24x16"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("channels", "groups"), [(20, 1), (20, 20), (6, 3)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bounds(algorithm, channels, groups, dtype):
    """minimum and maximum act as a clamp behind the convolution, also in its gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 19, 21, generator=generator, dtype=dtype)
    weight = torch.randn(channels, channels // groups, 3, 3, generator=generator, dtype=dtype)
    bias = torch.randn(channels, generator=generator, dtype=dtype)
    tensors = [each.requires_grad_() for each in (x, weight, bias)]
    exact = [each.detach().double().requires_grad_() for each in tensors]
    attributes = ([], groups, [], [1, 1, 1, 1], [])
    for low, high in [(0.0, None), (-2.0, 8.0), (None, 1.0)]:
        bounds = {"minimum": low, "maximum": high}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        y = fft_conv(*tensors, *attributes, algorithm=algorithm, **given)
        wanted = torch.nn.functional.conv2d(*exact, padding=1, groups=groups).clamp(low, high)
        tolerance = {torch.float32: 3e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
        assert (y - wanted).norm() <= tolerance * wanted.norm()
        if dtype == torch.bfloat16:  # sums at a bound may round to its other side
            continue
        to_y = torch.randn(y.shape, generator=generator, dtype=dtype)
        found = torch.autograd.grad(y, tensors, to_y)
        for each, other in zip(found, torch.autograd.grad(wanted, exact, to_y.double())):
            assert (each - other).norm() <= 10 * tolerance * other.norm()


def test_bounds_of_strides_lines_and_volumes():
    generator = torch.Generator().manual_seed(0)
    for spatial, strides in [(1, [2]), (1, [1]), (2, [2, 3]), (3, [1, 2, 1])]:
        x = torch.randn(1, 4, *[17] * spatial, generator=generator)
        weight = torch.randn(6, 4, *[5] * spatial, generator=generator)
        y = fft_conv(x, weight, strides=strides, minimum=0.0, maximum=6.0)
        convolve = getattr(torch.nn.functional, f"conv{spatial}d")
        wanted = convolve(x.double(), weight.double(), stride=strides).clamp(0, 6)
        assert (y - wanted).norm() <= 2e-6 * wanted.norm()


def test_bounds_let_nan_and_infinities_pass():
    x = torch.tensor([float("nan"), float("inf"), 1.0, 2.0]).reshape(1, 1, 2, 2)
    weight = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(fft_conv(x, weight), x, equal_nan=True)
    relu = fft_conv(x, weight, minimum=0.0)
    torch.testing.assert_close(relu, torch.relu(x), equal_nan=True)
