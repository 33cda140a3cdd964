"""The arguments of a module, given as a tensor, as a tuple or by name, and their variants."""

import pytest
import torch

from graphscale import GraphScaleError
from graphscale.modules.example import Example

X, Y = torch.arange(6.0).reshape(1, 6), torch.arange(3.0).reshape(1, 3)


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, 2), (X, 2), {}),
        ([X, [Y, None]], (X, [Y, None]), {}),
        ({"x": X, "mode": "mean"}, (), {"x": X, "mode": "mean"}),
    ],
)
def test_a_call(given: object, args: tuple, kwargs: dict) -> None:
    example = Example(given)
    assert example.args == args
    assert example.kwargs == kwargs


@pytest.mark.parametrize("given", [None, 3, (), {"mode": "mean"}, [[1], {"a": None}]])
def test_without_a_tensor_is_an_error(given: object) -> None:
    with pytest.raises(GraphScaleError, match="needs an example_input: a tensor"):
        Example(given)


def test_tensors_stand_in_the_order_of_the_call() -> None:
    assert all(
        one is other for one, other in zip(Example((X, {"a": [Y]}, 5)).tensors, (X, Y), strict=True)
    )
    assert Example({"b": X, "a": Y}).tensors[0] is X  # as the caller wrote them, not by name


def test_mapping_keeps_what_is_no_tensor() -> None:
    for given in ((X, 2, [Y]), {"x": X, "rest": (Y, "mean")}):
        example = Example(given)
        doubled = example.map(lambda each: 2 * each)
        assert [each.equal(2 * x) for each, x in zip(doubled.tensors, (X, Y))] == [True, True]
        assert Example.holds_tensors(given)
    assert doubled.kwargs["rest"][1] == "mean"
    assert not Example.holds_tensors((2, ["mean"]))


def test_one_image_becomes_two_and_two_stay() -> None:
    """Where one tensor has another first size, the batch is not that of all tensors."""
    two = Example((X, Y)).batched()
    assert [each.shape for each in two.tensors] == [(2, 6), (2, 3)]
    assert torch.equal(two.tensors[0][0], two.tensors[0][1])
    for given in (torch.zeros(3, 2), (X, torch.zeros(4)), (X, torch.tensor(0.5))):
        example = Example(given)
        assert example.batched() is example


def test_the_first_images() -> None:
    cut = Example((torch.arange(5), torch.tensor(7), "mean")).first_images(2)
    assert cut.tensors[0].tolist() == [0, 1]
    assert cut.tensors[1].tolist() == 7
    assert cut.args[2] == "mean"


def test_symbolic_batches_have_the_structure_of_the_call() -> None:
    (x, number, scalar) = Example((X, 2, torch.tensor(0.5))).symbolic_batch()
    assert x[0].__name__ == "batch"
    assert (number, scalar) == (None, None)
    assert list(Example({"x": X}).symbolic_batch()["x"]) == [0]


def test_only_the_first_tensor_is_named() -> None:
    assert Example((torch.tensor(0.5), X, Y)).batch_name() == (None, {0: "batch"}, None)
    assert Example({"a": X, "b": Y}).batch_name() == {"a": {0: "batch"}, "b": None}
