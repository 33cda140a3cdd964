"""Convolutions that choose their path: the same numbers on either, choices that are remembered."""

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


def test_takes_layers_with_kernels_and_keeps_the_rest():
    module = network()
    keys = list(module.state_dict())
    assert accelerate(module) is module
    assert [type(layer) is AutoConv2d for layer in module] == [True, False, False, True]
    assert isinstance(module[0], nn.Conv2d)
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize("forward", ["torch", "direct", "dense 16x16"])
@pytest.mark.parametrize("grad_input", ["torch", "dense 32x32"])
@pytest.mark.parametrize("grad_weight", ["torch", "dense 24x24"])
def test_every_way_gives_torchs_numbers(forward, grad_input, grad_weight, monkeypatch):
    ways = {"forward": forward, "grad_input": grad_input, "grad_weight": grad_weight}
    monkeypatch.setattr(
        Tuner, "seconds", lambda _, key, make: {"torch": 2.0, ways[key.partition(" ")[0]]: 1.0}
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


def test_gradients_of_gradients_go_through(monkeypatch):
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


def test_other_types_take_torchs_way():
    module, x = accelerate(network().double()), torch.randn(1, 2, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(module(x), network().double()(x))


@pytest.fixture
def chosen(monkeypatch):
    """A layer whose passes have all chosen a way of ours, torch's twin of it, and an image."""
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "dense 16x16": 1.0})
    torch.manual_seed(0)
    twin = torch.nn.Conv2d(2, 3, 5)
    layer = accelerate(copy.deepcopy(twin))
    x = torch.randn(2, 2, 12, 10)
    layer(x.clone().requires_grad_()).sum().backward()
    with torch.no_grad():
        layer(x)
    return layer, twin, x


def test_autocast_computes_in_its_type(chosen):
    layer, twin, x = chosen
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == twin(x).dtype == torch.bfloat16


def test_transforms_and_traces_take_torchs_way(chosen):
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


@pytest.mark.filterwarnings("ignore")  # of the older exporter, which is still asked for
def test_torchs_own_exporters_write_conv(chosen, tmp_path):
    layer, _, x = chosen
    for dynamo in (False, True):
        torch.onnx.export(layer, (x,), tmp_path / "torch.onnx", dynamo=dynamo, verbose=False)
        (node,) = onnx.load(tmp_path / "torch.onnx").graph.node
        assert node.op_type == "Conv"
    graphscale.export(layer, (x,), tmp_path / "ours.onnx")
    (node,) = onnx.load(tmp_path / "ours.onnx").graph.node
    assert node.op_type == "FFTConv"


def test_compiles_with_torchs_way_where_nothing_is_chosen():
    module, x = accelerate(network()), torch.randn(1, 2, 12, 10)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network()(x))


def test_compiles_with_the_way_that_is_chosen(monkeypatch):
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


def test_a_tie_goes_to_the_usual_way():
    assert fastest({"usual": 1.0, "other": 0.96}, "usual") == "usual"
    assert fastest({"usual": 1.0, "other": 0.90}, "usual") == "other"
