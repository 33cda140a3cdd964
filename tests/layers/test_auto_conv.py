"""Convolutions that choose their algorithm: equal results by each, and choices that are stored."""

import copy
import json

import onnx
import pytest
import torch
from torch import nn

import graphscale
from graphscale.core.tuning import Tuner, fastest
from graphscale.layers import AutoConv2d, accelerate, auto_conv


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(auto_conv, "_TUNERS", {})
    return tmp_path / "graphscale" / "tuning.json"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 7, padding=3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 9, stride=2, groups=2, padding=(4, 2)),
    )


def test_layers_with_kernels_are_taken_and_others_stay():
    module = network()
    keys = list(module.state_dict())
    assert accelerate(module) is module
    assert [type(layer) is AutoConv2d for layer in module] == [True, False, False, True]
    assert isinstance(module[0], nn.Conv2d)
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize("forward", ["torch", "direct", "dense 16x16"])
@pytest.mark.parametrize("grad_input", ["torch", "dense 32x32"])
@pytest.mark.parametrize("grad_weight", ["torch", "dense 24x24"])
def test_every_algorithm_agrees_with_torch(forward, grad_input, grad_weight, monkeypatch):
    algorithms = {"forward": forward, "grad_input": grad_input, "grad_weight": grad_weight}
    monkeypatch.setattr(
        Tuner,
        "seconds",
        lambda _, key, make: {"torch": 2.0, algorithms[key.partition(" ")[0]]: 1.0},
    )
    x = torch.randn(2, 2, 12, 10)
    plain, tuned = network(), accelerate(network())
    with torch.no_grad():
        torch.testing.assert_close(tuned(x), plain(x), rtol=1e-5, atol=1e-5)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for layers, given in zip((plain, tuned), inputs):
        layers(given).square().sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
    for one, other in zip(plain.parameters(), tuned.parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 4, padding="same"),
        nn.Conv2d(2, 4, (3, 5), padding=(1, 2), padding_mode="circular", groups=2),
        nn.Conv1d(2, 3, 9, dilation=2, bias=False),
    ],
)
def test_paddings_and_single_images(layer, monkeypatch):
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "direct": 1.0})
    x = torch.randn(2, 2, *[20] * (layer.weight.dim() - 2))
    wanted = layer(x)
    tuned = accelerate(layer)
    torch.testing.assert_close(tuned(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tuned(x[0]), wanted[0], rtol=1e-5, atol=1e-5)


def test_gradients_of_gradients(monkeypatch):
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "dense 16x16": 1.0})
    x = torch.randn(1, 2, 9, 9, requires_grad=True)
    results = []
    for module in (network(), accelerate(network())):
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), [x, module[0].weight]))
    for wanted, found in zip(*results):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_choices_are_measured_once_and_kept_in_a_file(empty_cache, monkeypatch):
    with torch.no_grad():
        accelerate(network())(torch.randn(1, 2, 12, 10))
    (known,) = json.loads(empty_cache.read_text()).values()
    assert len(known) == 2
    monkeypatch.setattr(auto_conv, "_TUNERS", {})
    measure = "graphscale.core.tuning.measure"
    monkeypatch.setattr(measure, lambda *_: pytest.fail("measured again"))
    with torch.no_grad():
        accelerate(network())(torch.randn(1, 2, 12, 10))


def test_memory_formats_are_measured_apart(empty_cache):
    layer, x = accelerate(nn.Conv2d(2, 4, 7)), torch.randn(1, 2, 12, 10)
    with torch.no_grad():
        for memory_format in (torch.contiguous_format, torch.channels_last):
            layer(x.to(memory_format=memory_format))
    (known,) = json.loads(empty_cache.read_text()).values()
    assert [key.endswith("not contiguous") for key in known] == [False, True]


def test_other_types_are_computed_by_torch():
    module, x = accelerate(network().double()), torch.randn(1, 2, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(module(x), network().double()(x))


@pytest.fixture
def chosen(monkeypatch):
    """A layer whose passes have all chosen FFTConv, the same layer of torch, and an image."""
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "dense 16x16": 1.0})
    torch.manual_seed(0)
    twin = torch.nn.Conv2d(2, 3, 5)
    layer = accelerate(copy.deepcopy(twin))
    x = torch.randn(2, 2, 12, 10)
    layer(x.clone().requires_grad_()).sum().backward()
    with torch.no_grad():
        layer(x)
    return layer, twin, x


@pytest.mark.parametrize("type_", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_type(type_, chosen):
    layer, twin, x = chosen
    with torch.autocast("cpu", type_):
        assert layer(x).dtype == twin(x).dtype == type_


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_as_accurate_as_torchs(autocast, monkeypatch):
    """Errors of the output and all gradients, to float64, by FFTConv and by torch."""
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "dense 16x16": 1.0})
    torch.manual_seed(0)
    exact = nn.Conv2d(8, 6, 5, padding=2)
    x = torch.randn(2, 8, 12, 10)
    if not autocast:
        exact, x = exact.bfloat16(), x.bfloat16()
    twins = [copy.deepcopy(exact), accelerate(copy.deepcopy(exact))]
    given = [x.clone().requires_grad_() for _ in twins]
    exact, exact_x = exact.double(), x.double().requires_grad_()
    y = exact(exact_x)
    y.square().sum().backward()
    wanted = [y.detach(), exact_x.grad, *(each.grad for each in exact.parameters())]
    errors = []
    for layer, images in zip(twins, given):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(images)
        y.double().square().sum().backward()
        found = [y.detach(), images.grad, *(each.grad for each in layer.parameters())]
        assert [each.dtype for each in found[1:]] == [x.dtype] * 3
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(found, wanted)])
    assert set(twins[1]._chosen.values()) == {"dense 16x16"}
    assert all(ours < 1.5 * torchs for torchs, ours in zip(*errors))


def test_types_are_measured_apart(empty_cache):
    layer, x = accelerate(nn.Conv2d(2, 4, 7)), torch.randn(1, 2, 12, 10)
    with torch.no_grad():
        layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
    (known,) = json.loads(empty_cache.read_text()).values()
    assert ["bfloat16" in key for key in known] == [False, True]


def test_transforms_and_traces_are_computed_by_torch(chosen):
    layer, twin, x = chosen
    weights = dict(twin.named_parameters())

    def loss(weights, x, module):
        return torch.func.functional_call(module, weights, (x,)).square().sum()

    for ours, wanted in zip(
        torch.func.grad(loss)(weights, x, layer).values(),
        torch.func.grad(loss)(weights, x, twin).values(),
    ):
        torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(torch.func.vmap(layer)(x[None]), twin(x)[None])
    torch.testing.assert_close(torch.func.jvp(layer, (x,), (x,)), torch.func.jvp(twin, (x,), (x,)))
    for traced in (torch.jit.trace(layer, x), torch.fx.symbolic_trace(layer)):
        torch.testing.assert_close(traced(x), twin(x))


@pytest.mark.filterwarnings("ignore")  # torch warns that its older exporter is deprecated
def test_torchs_own_exporters_write_conv(chosen, tmp_path):
    layer, _, x = chosen
    for dynamo in (False, True):
        torch.onnx.export(layer, (x,), tmp_path / "torch.onnx", dynamo=dynamo, verbose=False)
        (node,) = onnx.load(tmp_path / "torch.onnx").graph.node
        assert node.op_type == "Conv"
    graphscale.export(layer, (x,), tmp_path / "ours.onnx")
    (node,) = onnx.load(tmp_path / "ours.onnx").graph.node
    assert node.op_type == "FFTConv"


def test_compiles_torchs_convolution_where_nothing_is_chosen():
    module, x = accelerate(network()), torch.randn(1, 2, 12, 10)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network()(x))


def test_compiles_the_algorithm_that_is_chosen(monkeypatch):
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "dense 16x16": 1.0})
    module, x = accelerate(network()), torch.randn(1, 2, 12, 10)
    with torch.no_grad():
        wanted = module(x)
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), wanted)


def test_a_damaged_file_is_measured_anew(empty_cache):
    empty_cache.parent.mkdir(parents=True)
    empty_cache.write_text("{not json")
    assert Tuner("anything").seconds("key", lambda: {"one": lambda: None})["one"] >= 0
    assert json.loads(empty_cache.read_text())


def test_a_tie_goes_to_the_default():
    assert fastest({"default": 1.0, "other": 0.96}, "default") == "default"
    assert fastest({"default": 1.0, "other": 0.90}, "default") == "other"


class Clock:
    """A clock that stands still; each measurement moves it on by ten seconds."""

    def __init__(self, monkeypatch):
        self.now, self.measured = 0.0, []
        monkeypatch.setattr(auto_conv, "_BUDGET", auto_conv.Budget(clock=lambda: self.now))
        monkeypatch.setattr(Tuner, "seconds", self._measure)

    def _measure(self, key, make):
        self.now += 10
        self.measured.append(key)
        return {"torch": 2.0, "direct": 1.0}


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def call(layer, *lengths):
    with torch.no_grad():
        for length in lengths:
            x = torch.randn(1, 2, length)
            torch.testing.assert_close(layer(x), nn.Conv1d.forward(layer, x), rtol=1e-4, atol=1e-5)


def test_other_sizes_are_measured_only_within_the_budget(clock):
    layer = accelerate(nn.Conv1d(2, 3, 9))
    call(layer, 20)  # the first is always measured
    assert len(clock.measured) == 1
    call(layer, *range(21, 60))
    assert len(clock.measured) == 1
    clock.now = 199.0  # 10 s are more than a twentieth of it
    call(layer, 60)
    assert len(clock.measured) == 1
    clock.now = 201.0
    call(layer, 60, 61, 62)
    assert len(clock.measured) == 2
    assert "x=(1, 2, 60)" in clock.measured[1]


def test_a_layer_measures_a_few_sizes_only(clock):
    layer = accelerate(nn.Conv1d(2, 3, 9))
    for length in range(20, 40):
        clock.now += 1e6
        call(layer, length)
    assert len(clock.measured) == 4


def test_each_layer_and_pass_measures_its_first_size(clock):
    layers = accelerate(nn.Sequential(nn.Conv1d(2, 2, 9), nn.Conv1d(2, 2, 7)))
    layers(torch.randn(1, 2, 40, requires_grad=True)).sum().backward()
    passes = [key.partition(" ")[0] for key in clock.measured]
    assert passes == ["forward", "grad_input", "grad_weight"] * 2


def test_the_nearest_size_decides():
    measured = {
        (1, 2, 10): auto_conv._Alone("direct"),
        (1, 2, 1000): auto_conv._Alone("dense 32x32"),
        (64, 2, 10): auto_conv._Alone("torch"),
    }
    for shape, wanted in [
        ((1, 2, 12), "direct"),
        ((1, 2, 99), "direct"),
        ((1, 2, 101), "dense 32x32"),
        ((32, 2, 10), "torch"),
    ]:
        assert auto_conv._nearest(measured, torch.Size(shape)).algorithm == wanted
    assert auto_conv._nearest({}, torch.Size((1, 2, 3))).algorithm == "torch"


def test_measure_false_measures_nothing(clock, empty_cache):
    layer = accelerate(nn.Conv1d(2, 3, 9), measure=False)
    call(layer, 20, 30)
    assert clock.measured == []
    accelerate(layer)  # a second call lets it measure
    call(layer, 20)
    assert len(clock.measured) == 1


def test_takes_what_an_earlier_run_has_measured(monkeypatch):
    monkeypatch.setattr(Tuner, "known", lambda *_: {"torch": 2.0, "direct": 1.0})
    monkeypatch.setattr(Tuner, "seconds", lambda *_: pytest.fail("measured again"))
    layer = accelerate(nn.Conv1d(2, 3, 9), measure=False)
    call(layer, 20)
    assert list(layer._chosen.values()) == ["direct"]


def test_meta_and_fake_tensors_are_computed_by_torch():
    layer = accelerate(nn.Conv2d(2, 3, 5)).to("meta")
    assert layer(torch.empty(1, 2, 9, 9, device="meta")).shape == (1, 3, 5, 5)
    with torch.device("meta"):
        assert accelerate(nn.Conv2d(2, 3, 5))(torch.empty(1, 2, 9, 9)).is_meta
    with torch._subclasses.FakeTensorMode():
        assert accelerate(nn.Conv2d(2, 3, 5))(torch.empty(1, 2, 9, 9)).shape == (1, 3, 5, 5)


@pytest.mark.parametrize("algorithm", ["matrix", "direct", "winograd 4x4", "dense 8x8"])
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_every_algorithm_returns_torchs_memory_formats(algorithm, format_):
    x, weight = torch.randn(2, 8, 6, 5), torch.randn(4, 8, 3, 3)
    x, weight = (each.contiguous(memory_format=format_) for each in (x, weight))
    attributes = ([1, 1], 1, [3, 3], [1, 1, 1, 1], [1, 1])
    y = auto_conv._forward(x, weight, None, attributes, "torch")
    grad = torch.randn_like(y)
    for compute, inputs in (
        (auto_conv._forward, (x, weight, None)),
        (auto_conv._grad_input, (grad, x, weight)),
        (auto_conv._grad_weight, (grad, x, weight)),
    ):
        wanted = compute(*inputs, attributes, "torch")
        found = compute(*inputs, attributes, algorithm)
        assert found.is_contiguous(memory_format=format_)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_matrix_product_is_a_candidate_for_filters_that_outnumber_the_pixels():
    x, weight = torch.randn(2, 512, 4, 4), torch.randn(512, 512, 2, 2)
    attributes = ([1, 1], 1, [2, 2], [0, 0, 0, 0], [1, 1])
    for pass_ in ("forward", "grad_input", "grad_weight"):
        assert "matrix" in auto_conv._candidates(pass_, x, weight, attributes, True)
        few = weight[:8].contiguous()
        assert "matrix" not in auto_conv._candidates(pass_, x, few, attributes, True)
