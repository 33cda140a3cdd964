"""Trials in the steps of a network: with a clock that knows what each step takes."""

import copy
import pickle

import pytest
import torch
from torch import nn

from graphscale.core.tuning import Tuner
from graphscale.layers import accelerate, auto_conv, whole_network
from graphscale.layers.auto_conv import is_trying

X = torch.randn(1, 2, 12, 10)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 5, padding=2), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU())


class Clock:
    """Time passes in the layers only, as ``cost`` tells for a pass, kernel and algorithm."""

    def __init__(self, monkeypatch, cost):
        self.now = 0.0
        self.steps = []  # the algorithms by pass and kernel size, step by step
        monkeypatch.setattr(whole_network.time, "perf_counter", lambda: self.now)
        choose = auto_conv._Automatic._algorithms

        def timed(layer, *arguments):
            algorithms = choose(layer, *arguments)
            for pass_, algorithm in algorithms.items():
                self.steps[-1][pass_, layer.kernel_size[0]] = algorithm
                self.now += cost(pass_, layer.kernel_size[0], algorithm)
            return algorithms

        monkeypatch.setattr(auto_conv._Automatic, "_algorithms", timed)

    def step(self, run):
        self.steps.append({})
        run()
        self.now += 100.0  # what is between two steps does not count
        return self.steps[-1]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Every pass of every layer is twice as fast alone by 'direct'."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(auto_conv, "_TUNERS", {})
    monkeypatch.setattr(Tuner, "seconds", lambda *_: {"torch": 2.0, "direct": 1.0})


def training(module):
    def run():
        module(X.clone().requires_grad_()).square().sum().backward()

    return run


def inference(module):
    def run():
        with torch.no_grad():
            module(X)

    return run


def until_settled(clock, module, run):
    """The algorithms of the step after the trials, and the number of steps before it."""
    for number in range(200):
        clock.step(run)
        if not is_trying(module):
            return clock.step(run), number
    pytest.fail("the trials do not end")


def test_an_inference_keeps_what_makes_it_faster(monkeypatch):
    """In the network, 'direct' is faster in the layer of 5×5 only."""

    def cost(pass_, kernel, algorithm):
        return {"torch": 2.0, "direct": 1.0 if kernel == 5 else 4.0}[algorithm]

    clock, module = Clock(monkeypatch, cost), accelerate(network())
    settled, steps = until_settled(clock, module, inference(module))
    assert settled == {("forward", 5): "direct", ("forward", 3): "torch"}
    assert steps <= 40
    torch.testing.assert_close(module(X), network()(X))


def test_a_training_step_keeps_passes_of_their_own(monkeypatch):
    def cost(pass_, kernel, algorithm):
        if algorithm == "torch":
            return 2.0
        return 1.0 if (pass_, kernel) in [("grad_weight", 5), ("forward", 3)] else 3.0

    clock, module = Clock(monkeypatch, cost), accelerate(network())
    settled, _ = until_settled(clock, module, training(module))
    faster = {("grad_weight", 5), ("forward", 3)}
    assert {key for key, algorithm in settled.items() if algorithm == "direct"} == faster


def test_torchs_own_stay_where_the_network_is_not_faster(monkeypatch):
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 1.0)
    module = accelerate(network())
    settled, _ = until_settled(clock, module, inference(module))
    assert set(settled.values()) == {"torch"}


def test_what_is_hopelessly_slow_has_one_turn(monkeypatch):
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 9.0 if algorithm == "torch" else 1)
    module = accelerate(network())
    until_settled(clock, module, inference(module))
    only_torch = [set(step.values()) == {"torch"} for step in clock.steps]
    assert only_torch.count(True) == 1


def test_sizes_modes_and_formats_have_trials_of_their_own(monkeypatch):
    def cost(pass_, kernel, algorithm):
        return {"torch": 2.0, "direct": 1.0}[algorithm]

    clock, module = Clock(monkeypatch, cost), accelerate(network())
    until_settled(clock, module, inference(module))
    wider, turned = torch.randn(1, 2, 12, 14), X.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for x in (wider, turned):
            module(x)
            assert is_trying(module)
    module(X)
    assert is_trying(module)
    with torch.no_grad():
        module(X)
    assert not is_trying(module)


def test_before_the_trials_end_layers_take_what_gains_much_alone(monkeypatch):
    monkeypatch.setattr(
        Tuner,
        "seconds",
        lambda _, key, make: {"torch": 2.0 if "5, 5" in key else 1.2, "direct": 1.0},
    )
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 1.0)
    module = accelerate(network())
    first = clock.step(inference(module))
    assert first == {("forward", 5): "direct", ("forward", 3): "torch"}


def test_results_are_right_in_every_trial(monkeypatch):
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 1.0)
    module, plain = accelerate(network()), network()
    sets = set()  # of the algorithms
    for _ in range(20):
        grads = []
        for each in (module, plain):
            x = X.clone().requires_grad_()
            clock.steps.append({})
            each(x).square().sum().backward()
            sets.add(str(clock.steps[-1]))
            grads.append([x.grad, *(weight.grad.clone() for weight in each.parameters())])
            each.zero_grad()
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert len(sets) > 1


def test_a_training_step_without_backward_is_no_trial(monkeypatch):
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 1.0)
    module = accelerate(network())
    for _ in range(50):
        clock.step(lambda: module(X))
    assert is_trying(module)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_trials_of_its_own(monkeypatch, duplicate):
    clock = Clock(monkeypatch, lambda pass_, kernel, algorithm: 1.0)
    module = accelerate(network())
    clock.step(inference(module))
    other = duplicate(module)
    assert other[0]._network is other[2]._network is not module[0]._network
    until_settled(clock, other, inference(other))
    clock.step(inference(module))
    assert is_trying(module)
