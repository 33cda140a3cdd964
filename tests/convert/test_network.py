"""A network holds weights under any name, and survives copying, pickling and new programs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import fx, nn

import graphscale
from graphscale.convert.network import Network, Source

from .compare import random
from .test_importer import conv_chain


def empty() -> Network:
    return Network(Source(None, "file.onnx", {}, None))


def test_weights_under_names_with_dots() -> None:
    network = empty()
    names = ["a.b", "a", ".first", "last.", "a..b", ""]
    for index, name in enumerate(names):
        network.add_weight(name, nn.Parameter(torch.tensor(float(index))))
    assert [network.weight(name).item() for name in names] == list(range(len(names)))
    assert set(dict(network.named_parameters())) == set(names)
    with pytest.raises(KeyError):
        network.weight("a.c")


def test_parameters_are_trained_and_plain_tensors_are_buffers() -> None:
    network = empty()
    network.add_weight("norm.mean", torch.zeros(3))
    network.add_weight("norm.scale", nn.Parameter(torch.ones(3)))
    assert list(dict(network.named_buffers())) == ["norm.mean"]
    assert list(dict(network.named_parameters())) == ["norm.scale"]
    assert network.weight("norm.mean") is dict(network.named_buffers())["norm.mean"]


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("conv.weight", True),
        ("with space", True),  # getattr takes it
        ("a\nb", False),
        ('quo"te', False),
        ("class", False),
        ("a.for.b", False),
        ("ｘ", False),  # Python reads it as x
        ("a..b", True),
        ("forward", False),  # an attribute, but not this weight
    ],
)
def test_which_names_are_attributes(name: str, attribute: bool) -> None:
    network = empty()
    network.add_weight(name, nn.Parameter(torch.tensor(1.0)))
    assert network.is_attribute(name) == attribute
    assert network.odd_name(name)() is network.weight(name)


def doubled(factor: float) -> fx.Graph:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.mul, (graph.placeholder("x"), factor)))
    return graph


def test_the_program_is_its_text() -> None:
    network = empty()
    network.add_weight("code", nn.Parameter(torch.tensor(1.0)))  # as the attribute of a network
    network.set_program(doubled(2.0))
    assert "torch.mul(x, 2.0)" in vars(network)["code"]
    assert network(torch.tensor(3.0)).item() == 6
    network.set_program(doubled(5.0))
    assert network(torch.tensor(3.0)).item() == 15
    assert network.weight("code").item() == 1


def test_copies_share_the_file_and_no_weights() -> None:
    network = graphscale.load(conv_chain("a.weight", ".odd"))
    x = torch.from_numpy(random(2, 4, 8, 8))
    wanted = network(x)
    twin = copy.deepcopy(network)
    restored = pickle.loads(pickle.dumps(network))
    assert twin.source is network.source
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    for each in (twin, restored):
        assert torch.equal(each(x), wanted)
        assert list(each.state_dict()) == list(network.state_dict())
    assert not network(x).any()
    assert restored.code == network.code
    kept = graphscale.save(restored).graph.initializers[".odd"].const_value.numpy()
    np.testing.assert_array_equal(kept, twin.weight(".odd").detach().numpy())


def test_unexpected_keys_are_told_from_flat_names() -> None:
    network = empty()
    network.add_weight(".first", nn.Parameter(torch.zeros(2)))
    assert network.load_state_dict({".first": torch.ones(2)}) == ([], [])
    with pytest.raises(RuntimeError, match=r"Unexpected key.*\.second"):
        network.load_state_dict({".first": torch.ones(2), ".second": torch.ones(2)})
