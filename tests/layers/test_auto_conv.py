"""Convolutions that choose their path: the same numbers on either, choices that are remembered."""

import json

import pytest
import torch
from torch import nn

from graphscale.layers import AutoConv2d, accelerate, auto_conv
from graphscale.tuning import Timing, Tuner, measure


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
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 9, stride=2, groups=2, padding=(4, 2)),
    )


def test_takes_layers_with_large_kernels_and_keeps_the_rest():
    module = network()
    keys = list(module.state_dict())
    assert accelerate(module) is module
    assert [type(layer) is AutoConv2d for layer in module] == [True, False, False, True]
    assert isinstance(module[0], nn.Conv2d)
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize("path", ["direct", "fft"])
@pytest.mark.parametrize("training", [False, True])
def test_both_paths_give_torchs_numbers(path, training, monkeypatch):
    faster = Timing(1.0, 2.0) if path == "direct" else Timing(2.0, 1.0)
    monkeypatch.setattr(Tuner, "timing", lambda *_: faster)
    x = torch.randn(2, 2, 12, 10, requires_grad=training)
    plain, tuned = network(), accelerate(network())
    with torch.set_grad_enabled(training):
        wanted, found = plain(x), tuned(x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    if training:
        for layers in (plain, tuned):
            layers(x).square().sum().backward()
        for one, other in zip(plain.parameters(), tuned.parameters()):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)


def test_choices_are_measured_once_and_kept_in_a_file(empty_cache, monkeypatch):
    with torch.no_grad():
        accelerate(network())(torch.randn(1, 2, 12, 10))
    (known,) = json.loads(empty_cache.read_text()).values()
    assert len(known) == 2
    monkeypatch.setattr(auto_conv, "_TUNERS", {})
    monkeypatch.setattr("graphscale.tuning.measure", lambda *_: pytest.fail("measured again"))
    with torch.no_grad():
        accelerate(network())(torch.randn(1, 2, 12, 10))


def test_other_types_take_torchs_way():
    module, x = accelerate(network().double()), torch.randn(1, 2, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(module(x), network().double()(x))


def test_compiles_with_torchs_way_where_nothing_is_chosen():
    module, x = accelerate(network()), torch.randn(1, 2, 12, 10)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network()(x))


def test_a_damaged_file_is_measured_anew(empty_cache):
    empty_cache.parent.mkdir(parents=True)
    empty_cache.write_text("{not json")
    tuner = Tuner("anything")
    assert tuner.timing("key", lambda: (lambda: None, lambda: None)).direct >= 0
    assert json.loads(empty_cache.read_text())


def test_a_tie_goes_to_the_direct_way():
    assert Timing(1.0, 0.96).faster == "direct"
    assert Timing(1.0, 0.90).faster == "fft"


def test_both_ways_run_equally_often():
    runs = []
    measure(lambda: runs.append("direct"), lambda: runs.append("fft"))
    assert runs[0::2] == ["direct"] * (len(runs) // 2)
    assert runs[1::2] == ["fft"] * (len(runs) // 2)
