"""Trials of the whole model, with fixed seconds: the chosen set against the best of all sets."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphscale.acceleration import choose_layers as module
from graphscale.acceleration.choose_layers import choose_layers, rewrite_model

LAYERS = range(4)


class Session:
    """A session of the model with these algorithms; its run returns them."""

    def __init__(self, algorithms):
        self.algorithms = algorithms

    def run(self, names, feeds):
        return self.algorithms


class Model:
    def clone(self):
        return self


class Original:
    opened, feeds = Session({}), {}

    def difference(self, changed, largest):
        return 1e-6 * len(changed.algorithms)


@pytest.fixture
def choose(monkeypatch):
    """Calls choose_layers with models whose seconds `cost` computes from their algorithms."""

    def choose(cost, gains, groups):
        monkeypatch.setattr(module, "rewrite_model", lambda model, algorithms: algorithms)
        monkeypatch.setattr(module, "open_model", Session)
        monkeypatch.setattr(
            module,
            "measure_seconds",
            lambda candidates, rest, max_seconds: {
                name: cost(run()) for name, run in candidates.items()
            },
        )
        trials = []
        changes = dict.fromkeys(gains, "direct")
        result = choose_layers(
            Model(), changes, gains, groups, Original(), 0.0, lambda: trials.append(None)
        )
        return *result, len(trials)

    return choose


@pytest.mark.parametrize("seed", range(8))
def test_finds_the_best_of_all_sets_where_layers_do_not_affect_each_other(choose, seed):
    random = np.random.default_rng(seed)
    saved = random.uniform(-2, 2, len(LAYERS))  # in the whole model; alone, all of them gain
    gains = dict(enumerate(random.uniform(1.1, 5, len(LAYERS))))

    def cost(algorithms):
        return 20 - sum(saved[index] for index in algorithms)

    sets = itertools.chain.from_iterable(
        itertools.combinations(LAYERS, count) for count in range(len(LAYERS) + 1)
    )
    best = min(sets, key=cost)
    algorithms, before, after, difference, _ = choose(cost, gains, [[each] for each in LAYERS])
    assert before == 20
    if cost(best) < 0.95 * 20:
        # A group joins or leaves only where that saves a hundredth.
        assert cost(algorithms) == after
        assert after <= cost(best) + 0.01 * 20 * len(LAYERS)
        assert difference == 1e-6 * len(algorithms)
    else:
        assert (algorithms, after, difference) == ({}, 20, 0.0)


def test_a_group_changes_as_a_whole(choose):
    def cost(algorithms):
        return 10 - 3 * (0 in algorithms) + 2 * (1 in algorithms) - 4 * (2 in algorithms)

    algorithms, before, after, _, trials = choose(
        cost, {0: 2.0, 1: 2.0, 2: 1.2}, groups=[[2], [0, 1]]
    )
    assert algorithms == dict.fromkeys((0, 1, 2), "direct")
    assert (before, after) == (10, 5)
    assert trials == 3  # the sets, and each of the two groups


def test_less_than_five_percent_is_no_gain(choose):
    algorithms, before, after, difference, _ = choose(
        lambda algorithms: 100 - 4 * len(algorithms), {0: 9.0}, [[0]]
    )
    assert algorithms == {}
    assert (before, after, difference) == (100, 100, 0.0)


def test_rewrite_model_changes_these_convolutions_alone():
    weight = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w"], ["y"], "second"),
        ],
        "graph",
        [value("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    )
    assert rewrite_model(model, {1: "direct"}) is model
    operators = [node.op_type for node in model.graph]
    assert operators == ["Conv", "Relu", "FFTConv"]
    assert [name for _, name, _ in model.functions] == ["FFTConv"]
    rewrite_model(model, {1: None})
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]
