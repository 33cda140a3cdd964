"""Every CUDA kernel on torch's CUDA tensors against the CPU kernels."""

import pytest
import torch

from graphscale.layers import HierarchicalSoftmax, LookupTable
from graphscale.layers.operator import OPERATORS
from tests.gpu.cases import CASES, FLOATS, NAMES, TOLERANCE, cast


def outputs(operator, inputs, attributes):
    result = operator(*inputs, **attributes)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def same_bits(left, right):
    """torch compares few types of unsigned numbers."""
    return torch.equal(left.cpu().view(torch.uint8), right.cpu().view(torch.uint8))


def on_gpu(tensors):
    return [t if t is None else t.cuda() for t in tensors]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_equals_the_cpu(name, inputs, attributes, dtype):
    inputs = cast(inputs, dtype)
    wanted = outputs(OPERATORS[name], cast(inputs, torch.float64), attributes)
    exact = outputs(OPERATORS[name], inputs, attributes)
    for got, want, same in zip(outputs(OPERATORS[name], on_gpu(inputs), attributes), wanted, exact):
        assert got.is_cuda
        assert got.shape == want.shape
        if not got.is_floating_point():
            assert same_bits(got, same)
        elif want.numel():
            error = (got.cpu().double() - want).abs().max()
            assert error <= TOLERANCE[dtype] * want.abs().max().clamp_min(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_a_cuda_graph_can_record_it(name, inputs, attributes, dtype):
    operator = OPERATORS[name]
    inputs = on_gpu(cast(inputs, dtype))
    wanted = outputs(operator, inputs, attributes)
    outputs(operator, inputs, attributes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = outputs(operator, inputs, attributes)
    for tensor in got:
        tensor.view(torch.uint8).zero_()
    graph.replay()
    torch.cuda.synchronize()
    for left, right in zip(got, wanted):
        assert same_bits(left, right)


@pytest.mark.parametrize("algorithm", ["dense 32x32", "dense 64x64", "dense 64x64 tf32"])
@pytest.mark.parametrize("mean", [0, 3])
def test_bfloat16_convolutions_are_as_accurate_as_cudnns(algorithm, mean):
    """Large means that kernels of mean 0 take away again are the hardest for spectra."""
    torch.manual_seed(0)
    x = (torch.randn(8, 64, 60, 60, device="cuda") + mean).relu().bfloat16()
    weight = torch.randn(48, 64, 13, 13, device="cuda") / 100
    weight = (weight - weight.mean((1, 2, 3), keepdim=True)).bfloat16()
    grad = torch.randn(8, 48, 48, 48, device="cuda").bfloat16()

    def passes(dtype):
        given = [t.to(dtype).requires_grad_() for t in (x, weight)]
        y = torch.nn.functional.conv2d(*given)
        return [y.detach(), *torch.autograd.grad(y, given, grad.to(dtype))]

    ours = [
        OPERATORS["FFTConv"](x, weight, algorithm=algorithm),
        OPERATORS["FFTConvGradInput"](grad, weight, x, algorithm=algorithm),
        OPERATORS["FFTConvGradWeight"](grad, x, weight, algorithm=algorithm),
    ]
    for got, cudnn, exact in zip(ours, passes(torch.bfloat16), passes(torch.float64)):
        assert (got - exact).norm() < 2 * (cudnn - exact).norm()


def test_runs_on_the_current_stream():
    x = torch.randn(1 << 12, 256, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.zero_()
        y = OPERATORS["CrossMapNormalization"](x, size=3, scale=1.0, power=0.75)
    stream.synchronize()
    assert not y.any()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES, ids=NAMES)
def test_runs_on_the_tensors_gpu(name, inputs, attributes):
    inputs = cast(inputs, torch.float32)
    wanted = outputs(OPERATORS[name], on_gpu(inputs), attributes)
    second = [t if t is None else t.to("cuda:1") for t in inputs]
    for got, want in zip(outputs(OPERATORS[name], second, attributes), wanted):
        assert got.device.index == 1
        assert same_bits(got, want)


def test_a_lookup_of_what_is_not_there_is_not_a_number():
    y = OPERATORS["LookupTable"](torch.ones(4, 8).cuda(), torch.tensor([2**40, 1]).cuda())
    assert y[0].isnan().all()
    assert (y[1] == 1).all()


@pytest.mark.parametrize("padding", [None, 2])
def test_an_index_that_is_not_there_has_no_sparse_gradient(padding):
    table = LookupTable(4, 3, sparse=True, padding_idx=padding).cuda()
    table(torch.tensor([1, 4, -1, 2**40, 1]).cuda()).sum().backward()
    assert table.weight.grad.to_dense().tolist() == [[0, 0, 0], [2, 2, 2], [0, 0, 0], [0, 0, 0]]


def test_a_target_that_is_no_class_has_no_loss_and_no_gradient():
    layer = HierarchicalSoftmax(8, 30, reduction="none").cuda()
    x = torch.randn(3, 8, device="cuda", requires_grad=True)
    loss = layer(x, torch.tensor([2, 30, -(2**50)]).cuda())
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, True]
    assert x.grad[0].any()
    assert not x.grad[1:].any()


def test_a_million_classes_in_bounded_memory():
    layer = HierarchicalSoftmax(64, 1_000_000, sparse=True).cuda()
    x, target = torch.randn(256, 64, device="cuda"), torch.randint(1_000_000, (256,)).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    layer(x, target).backward()
    values, classes = layer.top_k(x, 5)
    # The touched rows' gradients, and scratch that does not grow with the classes.
    assert torch.cuda.max_memory_allocated() - before < 512 << 20
    part = layer.log_prob(x[:2])
    torch.testing.assert_close(part.topk(5).values, values[:2])
    assert torch.equal(part.topk(5).indices, classes[:2])
