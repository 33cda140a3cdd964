"""Arguments are taken from Python, numpy and torch; a wrong one is named with what to give."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from graphscale.core import arguments
from graphscale.core.errors import GraphScaleError


def test_numbers_of_numpy_become_pythons() -> None:
    for given in (np.int64(3), np.array(3), np.uint8(3)):
        number = arguments.whole_number("n", given, 1, 3)
        assert (number, type(number)) == (3, int)
    assert arguments.real_number("n", np.float32(0.5), 0, 1) == 0.5
    assert arguments.positive_number("n", np.float64(1e-9)) == 1e-9
    assert arguments.whole_numbers("n", np.array([3, 4]), "sizes") == (3, 4)
    assert arguments.height_and_width("n", np.int32(5)) == (5, 5)
    assert arguments.height_and_width("n", [5, np.int32(6)]) == (5, 6)


@pytest.mark.parametrize("wrong", [None, "3", b"3", [], [3], {}, 2.0, math.nan, object, 3j, -1])
def test_what_is_no_number_is_named(wrong: object) -> None:
    with pytest.raises(GraphScaleError, match=r"^n is .*; give a whole number of at least 0$"):
        arguments.whole_number("n", wrong, 0)
    if wrong != 2.0:
        with pytest.raises(GraphScaleError, match=r"^n is .*; give a number from 0 to 9$"):
            arguments.real_number("n", wrong, 0, 9)
        with pytest.raises(GraphScaleError, match=r"^n is .*; give a number above 0$"):
            arguments.positive_number("n", wrong)
    if wrong != [3]:
        with pytest.raises(GraphScaleError, match=r"^n is .*; give sizes$"):
            arguments.whole_numbers("n", wrong, "sizes")
    with pytest.raises(GraphScaleError, match=r"^n is .*; give height and width"):
        arguments.height_and_width("n", wrong)
    with pytest.raises(GraphScaleError, match=r"^n is .*; give a or b$"):
        arguments.one_of("n", wrong, ("a", "b"))


def test_bounds_are_told() -> None:
    for most, text in ((9, "from 1 to 9"), (None, "from 1 to 9223372036854775807")):
        bound = {} if most is None else {"most": most}
        with pytest.raises(GraphScaleError, match=f"whole number {text}$"):
            arguments.whole_number("n", 2**70, 1, **bound)
    with pytest.raises(GraphScaleError, match=r"a number of at most 9$"):
        arguments.real_number("n", math.inf, most=9)


def test_a_long_value_is_shortened_to_one_line() -> None:
    with pytest.raises(GraphScaleError) as caught:
        arguments.whole_number("n", "a\n" * 10_000)
    assert len(str(caught.value)) < 100
    assert "\n" not in str(caught.value)


def test_texts_and_paths() -> None:
    assert arguments.texts("keep", (each for each in "ab")) == ["a", "b"]
    for wrong in ("conv", b"conv", None, 3, [3], np.array(3)):
        with pytest.raises(GraphScaleError, match=r"^keep is .*; give a list of texts$"):
            arguments.texts("keep", wrong)
    assert arguments.file_path("path", "a/b") == Path("a/b")
    with pytest.raises(GraphScaleError, match=r"^path is 3; give a path$"):
        arguments.file_path("path", 3)
