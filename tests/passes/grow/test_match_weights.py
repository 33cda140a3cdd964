"""Each weight is matched with a checkpoint's tensor, by its name or else by its place."""

import numpy as np

from graphscale.passes.grow.match_weights import match_weights, tensors_by_name
from tests.passes.parsed_graphs import normal, read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 5, 5] x) => (float[N, 2, 5, 5] y)'
SHAPES = {"a": (2, 2, 1, 1), "b": (2, 2, 1, 1), "c": (2,)}


def network(a: str, b: str, c: str):
    return read(
        f"{HEAD} {{ p = Conv(x, {a})  q = Relu(p)  y = Conv(q, {b}, {c}) }}",
        **{a: normal(2, 2, 1, 1), b: normal(2, 2, 1, 1, seed=1), c: normal(2)},
    )


def test_by_name():
    target = network("a", "b", "c")
    assert match_weights(target, network("a", "b", "c"), SHAPES) == {"a": "a", "b": "b", "c": "c"}


def test_renamed_weights_are_found_by_operator_place_and_shape():
    target = network("a", "b", "c")
    assert match_weights(target, network("k0", "k1", "k2"), SHAPES) == {
        "a": "k0",
        "b": "k1",
        "c": "k2",
    }
    assert match_weights(target, network("a", "k1", "k2"), SHAPES) == {
        "a": "a",
        "b": "k1",
        "c": "k2",
    }


def test_a_name_of_another_shape_is_no_match():
    target = network("a", "b", "c")
    found = match_weights(target, network("b", "k1", "c"), SHAPES | {"a": (2, 2, 3, 3)})
    assert "a" not in found
    assert found["b"] == "b"


def test_where_the_numbers_of_weights_differ_nothing_is_guessed():
    other = read(f"{HEAD} {{ y = Conv(x, k) }}", k=normal(2, 2, 1, 1))
    assert match_weights(network("a", "b", "c"), other, SHAPES) == {}


def test_constants_are_weights_too():
    model = read(f"{HEAD} {{ c = Constant <value = float[1] {{2.0}}> ()  y = Mul(x, c) }}")
    tensors = tensors_by_name(model)
    assert {name: tensor.numpy().tolist() for name, tensor in tensors.items()} == {"c": [2]}
    assert isinstance(tensors["c"].numpy(), np.ndarray)
