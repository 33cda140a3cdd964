"""The tracer records torch calls, and knows which sizes depend on the batch."""

import pytest
import torch
from torch import fx, nn

from graphscale.convert.tracing import Tracer, is_program_value


@pytest.fixture
def tracer() -> Tracer:
    return Tracer(nn.Module(), [3, 5])


def run(tracer: Tracer, results: object, *inputs: torch.Tensor) -> object:
    """The finished program on inputs."""
    return fx.GraphModule(tracer.root, tracer.finish(results))(*inputs)


def images(tracer: Tracer, name: str = "x") -> object:
    return tracer.input(name, [(n, 4, 6) for n in tracer.batches], torch.float32)


def test_fixed_sizes_are_numbers_and_others_are_steps(tracer: Tracer) -> None:
    x = images(tracer)
    batch, channels, width = x.shape
    assert (channels, width, x.ndim, x.dim()) == (4, 6, 3, 3)
    assert is_program_value(batch)
    assert not is_program_value(channels)
    assert x.is_floating_point()
    flat = torch.reshape(x, (x.shape[0] * 2, 12))
    assert [each.shape for each in flat.samples] == [(6, 12), (10, 12)]
    for n in (1, 7):
        given = torch.randn(n, 4, 6)
        again = Tracer(nn.Module(), [3, 5])
        value = images(again)
        found = run(again, torch.reshape(value, (value.shape[0] * 2, 12)), given)
        assert torch.equal(found, given.reshape(2 * n, 12))


def test_a_fixed_batch_is_a_number() -> None:
    tracer = Tracer(nn.Module(), [3])
    assert images(tracer).shape == (3, 4, 6)


def test_the_batch_and_the_device_are_those_of_the_input(tracer: Tracer) -> None:
    x = images(tracer)
    made = tracer.create(torch.zeros, (tracer.batch, 2), {"dtype": torch.float64})
    assert made.samples[1].shape == (5, 2)
    found = run(tracer, (made, x), torch.randn(9, 4, 6))[0]
    assert (found.shape, found.dtype) == ((9, 2), torch.float64)


def test_what_is_known_is_computed_at_once(tracer: Tracer) -> None:
    images(tracer)
    assert torch.equal(tracer.create(torch.full, ((2,), 3.0), {}), torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("image", "image"),
        ("a.b/c", "a_b_c"),
        ("0", "input_0"),
        ("class", "input_class"),
        ("torch", "torch_"),
        ("self", "self_"),
        ("", "x"),
        ("²", "_"),
    ],
)
def test_arguments_have_names_that_python_allows(tracer: Tracer, name: str, argument: str) -> None:
    assert images(tracer, name).node.target == argument


def test_arguments_of_similar_names(tracer: Tracer) -> None:
    one, other = images(tracer, "a.b"), images(tracer, "a_b")
    assert (one.node.target, other.node.target) == ("a_b", "a_b_")
    x, y = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
    assert torch.equal(run(tracer, one - other, x, y), x - y)


def test_constants_are_buffers_once_and_those_unused_are_dropped(tracer: Tracer) -> None:
    x, bias = images(tracer), torch.arange(6.0)
    torch.mul(x, torch.ones(6))  # nothing reads it
    found = torch.add(torch.add(x, bias), bias)
    given = torch.randn(2, 4, 6)
    assert torch.equal(run(tracer, found, given), given + bias + bias)
    names = [name for name, _ in tracer.root.named_buffers()]
    assert len(names) == 1
    assert tracer.root.state_dict() == {}


def test_weights_and_modules_of_the_root(tracer: Tracer) -> None:
    tracer.root.scale = nn.Parameter(torch.full((6,), 2.0))
    x = images(tracer)
    scaled = torch.mul(x, tracer.attribute("scale", tracer.root.scale))
    dropped = tracer.module(nn.Dropout(0.5), "Dropout")(scaled)
    unused = tracer.module(nn.Dropout(0.5), "Dropout")(x)
    assert unused.samples[0].shape == (3, 4, 6)
    given = torch.ones(2, 4, 6)
    tracer.root.eval()
    found = run(tracer, dropped, given)
    assert torch.equal(found, 2 * given)
    assert [name for name, _ in tracer.root.named_children()] == ["Dropout_0"]


def test_values_know_what_they_are() -> None:
    tracer = Tracer(nn.Module(), [3, 5])
    x = tracer.input("x", [(3,), (5,)], torch.int64)
    assert not x.is_floating_point()
    assert tracer.proxy(x.node).samples is x.samples
    assert not is_program_value(3)
