"""One NaN, infinity or huge number given to FFTConv reaches what it reaches in torch, no more."""

import os
import subprocess
import sys

import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

import graphscale
from graphscale.layers.fft_conv import fft_conv, fft_conv_grad_input, fft_conv_grad_weight

OPERATORS = {
    "FFTConv": fft_conv,
    "FFTConvGradInput": fft_conv_grad_input,
    "FFTConvGradWeight": fft_conv_grad_weight,
}
NUMBERS = [float("nan"), float("inf"), -1e20, 1e7]
# The algorithm, channels, kernel size, groups, stride.
CASES = [
    ("auto", 5, 3, 1, 1),
    ("winograd 4x4", 5, 3, 1, 1),
    ("winograd 6x6", 18, 4, 1, 1),
    ("dense 16x20", 5, 6, 1, 1),
    ("dense 16x20", 3, 7, 1, 2),
    ("per_channel 28x28", 6, 9, 6, 1),
    ("per_channel 16x16", 4, 5, 2, 1),
    ("auto", 8, 13, 1, 1),
]


def direct(x, weight, grad, pad, groups, stride):
    """The output of torch's direct convolution, and its gradients to x and weight, in float64."""
    x, weight = (tensor.double().requires_grad_() for tensor in (x, weight))
    y = functional.conv2d(x, weight, None, stride, pad, 1, groups)
    return y, *torch.autograd.grad(y, (x, weight), grad.double())


def assert_same(got, wanted):
    """Elements of any size, NaN and infinities included, agree to 1e-4 of their own size."""
    torch.testing.assert_close(got.double(), wanted.detach(), rtol=1e-4, atol=1e-3, equal_nan=True)


def in_torch(name, tensors, attributes):
    return OPERATORS[name](*tensors, **attributes)


def in_onnxruntime(name, tensors, attributes):
    """One node, whose weight is a constant where the operator multiplies by it."""
    constant = [1] if name != "FFTConvGradWeight" else []
    names = [f"input_{i}" for i in range(len(tensors))]
    node = helper.make_node(name, names, ["output"], domain="graphscale", **attributes)
    graph = helper.make_graph(
        [node],
        "one_node",
        [
            helper.make_tensor_value_info(names[i], 1, tensor.shape)
            for i, tensor in enumerate(tensors)
            if i not in constant
        ],
        [helper.make_tensor_value_info("output", 1, None)],
        [numpy_helper.from_array(tensors[i].numpy(), names[i]) for i in constant],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("graphscale", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(graphscale.get_library_path())
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {value.name: tensors[int(value.name[-1])].numpy() for value in session.get_inputs()}
    return torch.tensor(session.run(None, given)[0])


def check(runs, algorithm, channels, kernel, groups, stride):
    generator = torch.Generator().manual_seed(0)
    pad = kernel // 2
    x = torch.randn(2, channels, 23, 21, generator=generator)
    weight = torch.randn(channels, channels // groups, kernel, kernel, generator=generator)
    grad = torch.randn(functional.conv2d(x, weight, None, stride, pad, 1, groups).shape)
    attributes = {
        "pads": [pad] * 4,
        "strides": [stride] * 2,
        "group": groups,
        "algorithm": algorithm,
    }
    for number in NUMBERS:
        for place in range(3):
            tensors = [x.clone(), weight.clone(), grad.clone()]
            changed = tensors[place]
            # Among the weights the middle one, which never meets the zeros around an image.
            column = kernel // 2 if place == 1 else 1
            changed[-1, channels // groups - 1, changed.shape[2] // 2, column] = number
            wanted = direct(*tensors, pad, groups, stride)
            x_, w_, grad_ = tensors
            given = [(x_, w_), (grad_, w_, x_), (grad_, x_, w_)]
            for name, inputs, exact in zip(OPERATORS, given, wanted):
                for run in runs:
                    assert_same(run(name, inputs, attributes), exact)


@pytest.mark.parametrize("run", [in_torch, in_onnxruntime])
@pytest.mark.parametrize("case", CASES)
def test_a_number_reaches_what_it_reaches_directly(case, run):
    check([run], *case)


def test_on_every_processor():
    environment = {**os.environ, "GRAPHSCALE_SIMD": "portable"}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype):
    x, weight = torch.randn(1, 4, 20, 20).to(dtype), torch.randn(4, 4, 5, 5).to(dtype)
    x[0, 1, 7, 8] = float("inf")
    got = fft_conv(x, weight, pads=[2] * 4, algorithm="dense 24x24")
    wanted = functional.conv2d(x.double(), weight.double(), padding=2)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-2, atol=0.3, equal_nan=True)


def test_numbers_of_one_size_stay_with_the_algorithm():
    """Tensors of any one size, zeros among them, are transformed: the results differ in bits."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 4, 20, 20), torch.randn(4, 4, 5, 5, generator=generator)
    x[:, :2, 5:] = 0
    for size in (1e-30, 1e-6, 1.0, 1e6, 1e15):
        options = {"pads": [2] * 4}
        fast = fft_conv(x * size, weight, **options, algorithm="dense 24x24")
        directly = fft_conv(x * size, weight, **options, algorithm="direct")
        assert not torch.equal(fast, directly)
        torch.testing.assert_close(fast, directly, rtol=1e-4, atol=1e-4 * size)


if __name__ == "__main__":
    assert os.environ["GRAPHSCALE_SIMD"] == "portable"
    for case in CASES:
        check([in_torch], *case)
    check([in_onnxruntime], *CASES[2])
