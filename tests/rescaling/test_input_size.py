"""Input sizes are parsed as users write them, and give the shapes of all inputs."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import graphscale
from graphscale.rescaling.input_size import InputSize, axis_size, has_fixed_size, input_shapes
from tests.passes.small_graphs import graph


def model(inputs: str) -> ir.Model:
    return ir.from_proto(graph("y = Identity (x)", inputs))


@pytest.mark.parametrize(
    ("given", "fixed", "expected"),
    [
        (None, True, InputSize()),
        (160, True, InputSize(pretrain=(160,))),
        ("160", False, InputSize(target=(160,))),
        ("160x128", True, InputSize(pretrain=(160, 128))),
        ("224:160", False, InputSize((224,), (160,))),
        ((160, 128), True, InputSize(pretrain=(160, 128))),
    ],
)
def test_parsing(given: object, fixed: bool, expected: InputSize) -> None:
    assert InputSize.parse(given, fixed) == expected


@pytest.mark.parametrize("given", ["x160", "160:", "1:2:3", "-5", "big", "0", "160x0"])
def test_what_is_no_size(given: str) -> None:
    with pytest.raises(graphscale.GraphScaleError, match="input size"):
        InputSize.parse(given, True)


def test_one_number_stands_for_all_axes() -> None:
    assert [axis_size((160,), axis) for axis in (0, 1)] == [160, 160]
    assert [axis_size((160, 128), axis) for axis in (0, 1)] == [160, 128]


def test_open_sizes_are_given() -> None:
    entry = model("float[n,3,h,w] x")
    assert not has_fixed_size(entry)
    assert input_shapes(entry, InputSize(target=(64, 48))) == {"x": [1, 3, 64, 48]}
    with pytest.raises(graphscale.GraphScaleError, match="symbolic height or width 'h'"):
        input_shapes(entry, InputSize())


def test_a_fixed_size_cannot_be_another() -> None:
    with pytest.raises(graphscale.GraphScaleError, match="fixed size 32 and cannot be 64"):
        input_shapes(model("float[n,3,32,32] x"), InputSize(target=(64,)))


def test_a_state_of_three_dimensions_has_its_own_size() -> None:
    """The sizes are the image's; the state's batch has the name of the image's."""
    entry = model("float[n,1,32,64] x, float[2,n,24] state")
    size = InputSize((32, 64), (24, 64))
    assert input_shapes(entry, size) == {"x": [1, 1, 32, 64], "state": [2, 1, 24]}


def test_a_wrong_number_of_sizes() -> None:
    with pytest.raises(graphscale.GraphScaleError, match="has 3 numbers, but input 'x' has 2"):
        input_shapes(model("float[1,3,32,32] x"), InputSize(pretrain=(8, 8, 8)))
