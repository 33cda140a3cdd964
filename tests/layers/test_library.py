"""Calls through the C API: packed tensors, errors that name the operator, algorithms."""

import struct

import pytest
import torch

from graphscale import GraphScaleError
from graphscale.core.c_api import attribute_array
from graphscale.layers import library


def test_trainable_inputs_are_those_of_the_description():
    assert library.trainable_inputs("FFTConv") == (1, 2)
    assert library.trainable_inputs("LookupTable") == (0,)
    assert library.trainable_inputs("Maxout") == ()


def test_tensors_are_packed_as_pointer_type_rank_and_sizes():
    x, words = torch.zeros(2, 3), torch.zeros(5, dtype=torch.uint32)
    packed = library._numbers("Maxout", [x, None, words])
    wanted = (x.data_ptr(), 1, 2, 2, 3, 0, 0, 0, words.data_ptr(), 12, 1, 5)
    assert struct.unpack(f"{len(wanted)}q", packed) == wanted


def test_an_operator_writes_into_its_outputs():
    """A bit is set where a number is not negative; the scales are the means of both kinds."""
    x = torch.full((1, 32), 3.0)
    x[0, 2], x[0, 31] = -1, -2
    words, left = torch.zeros(1, 1, dtype=torch.uint32), torch.empty(1, 32)
    scales = torch.empty(1, 2)
    inputs = [x, torch.zeros(1, 32)]
    library.run("OneBitQuantize", inputs, [words, scales, left], attribute_array((), ()))
    assert words.item() == 0xFFFFFFFF - (1 << 2) - (1 << 31)
    assert scales.tolist() == [[3.0, -1.5]]
    assert left[0, 2].item() == 0.5  # -1 is sent as -1.5


def test_maxout_of_a_transposed_input():
    """Inputs are made contiguous, and the widest of two neighbours is written."""
    x = torch.tensor([[1.0, 5.0], [2.0, 4.0], [7.0, 0.0], [3.0, 6.0]]).T.contiguous().T
    y = torch.empty(2, 2)
    attributes = attribute_array(("width", "stride"), (2, 2))
    library.run("Maxout", [x.T], [y], attributes)
    assert y.tolist() == [[2.0, 7.0], [5.0, 6.0]]


@pytest.mark.parametrize(
    ("name", "dtype", "sentence"),
    [
        ("Unheard", torch.float32, "^Unheard: "),
        ("Maxout", torch.int8, "^Maxout: there is no kernel for torch.int8; convert it$"),
        ("Maxout", torch.float32, "^Maxout: attribute 'stride' is missing; give it$"),
    ],
)
def test_errors_begin_with_the_operator(name, dtype, sentence):
    x, y = torch.zeros(2, 2, dtype=dtype), torch.empty(2, 1)
    with pytest.raises(GraphScaleError, match=sentence):
        library.run(name, [x], [y], attribute_array(("width",), (2,)))


def test_algorithms_of_a_convolution_and_of_what_has_none():
    x, weight = torch.randn(1, 4, 32, 32), torch.randn(4, 4, 9, 9)
    found = library.algorithms("FFTConv", [x, weight], {"pads": [4, 4, 4, 4]})
    assert len(found) > 1
    assert len(set(found)) == len(found)
    assert "direct" in found
    assert library.algorithms("Maxout", [x], {"width": 2, "stride": 2}) == []


@pytest.mark.parametrize(
    ("shape", "group", "sentence"),
    [
        ((4, 4, 90, 90), 1, "x has 32 positions .* needs 90"),
        ((4, 3, 5, 5), 1, "the channels of x .* are 4 and 3"),
        ((3, 2, 5, 5), 2, "weight has 3 filters; they must be a multiple of 2 groups"),
        ((4, 4, 5, 5), 0, "group is 0"),
    ],
)
def test_algorithms_are_refused_for_what_run_refuses(shape, group, sentence):
    x, weight = torch.zeros(1, 4, 32, 32), torch.zeros(shape)
    with pytest.raises(GraphScaleError, match=f"FFTConv: {sentence}"):
        library.algorithms("FFTConv", [x, weight], {"group": group})
    with pytest.raises(GraphScaleError, match=f"FFTConv: {sentence}"):
        library.run("FFTConv", [x, weight], [x], attribute_array(("group",), (group,)))
