"""Layers of the target get the untied weights that the checkpoint's layers have."""

import numpy as np

from graphscale.passes.grow.follow_untied_weights import FollowUntiedWeights
from graphscale.passes.normalize.untie_weights import UntieWeights
from tests.passes.parsed_graphs import normal, operators, read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 5, 5] x) => (float[N, 2, 5, 5] y)'
WEIGHTS = {"p": normal(2, 2, 1, 1), "q": normal(2, 2, 1, 1, seed=1), "zeros": np.zeros(2, "f")}


def test_a_shared_bias_becomes_two():
    text = f"{HEAD} {{ a = Conv(x, p, zeros)  y = Conv(a, q, zeros) }}"
    target, checkpoint = read(text, **WEIGHTS), read(text, **WEIGHTS)
    (added,) = UntieWeights()(checkpoint).names
    result = FollowUntiedWeights(checkpoint, [])(target)
    assert result.names == [added]
    assert [node.inputs[2].name for node in target.graph] == ["zeros", added]
    assert not FollowUntiedWeights(checkpoint, [])(target).modified


def test_an_identity_of_a_shared_bias_goes():
    text = f"{HEAD} {{ bias = Identity(zeros)  a = Conv(x, p, zeros)  y = Conv(a, q, bias) }}"
    target, checkpoint = read(text, **WEIGHTS), read(text, **WEIGHTS)
    assert UntieWeights()(checkpoint).names == ["bias"]
    assert FollowUntiedWeights(checkpoint, [])(target).names == ["bias"]
    assert operators(target) == ["Conv", "Conv"]
    assert [node.inputs[2].name for node in target.graph] == ["zeros", "bias"]


def test_a_weight_that_was_only_renamed_stays():
    weights = {"p": normal(2, 2, 1, 1), "b": normal(2)}
    target = read(f"{HEAD} {{ a = Conv(x, p, b)  y = Conv(a, p, b) }}", **weights)
    checkpoint = read(
        f"{HEAD} {{ a = Conv(x, p, c)  y = Conv(a, p, c) }}", p=weights["p"], c=weights["b"]
    )
    assert not FollowUntiedWeights(checkpoint, [])(target).modified


def test_constants_that_hold_shapes_are_not_followed():
    weights = {"s": np.float32([1, 1, 2, 2]), "t": np.float32([1, 1, 3, 3])}
    target = read(f"{HEAD} {{ a = Mul(x, s)  y = Mul(a, s) }}", s=weights["s"])
    checkpoint = read(f"{HEAD} {{ a = Mul(x, s)  y = Mul(a, t) }}", **weights)
    assert not FollowUntiedWeights(checkpoint, ["t"])(target).modified
    assert FollowUntiedWeights(checkpoint, [])(target).names == ["t"]
