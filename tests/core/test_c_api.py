"""The C API for callers without torch: descriptions, and outputs of calls that are not run."""

import pytest

from graphscale.core.c_api import algorithms, describe, infer_shapes, operator_names
from graphscale.core.errors import GraphScaleError

FLOAT, INT64, DOUBLE = 1, 7, 11


def test_operators_are_described():
    assert operator_names() == {each["name"] for each in describe()}
    assert {"FFTConv", "TemporalKMaxPool"} <= operator_names()


def test_every_output_with_its_type():
    """9 frames, of which max(2, 40 %) are kept; the second output holds where they stood."""
    found = infer_shapes("TemporalKMaxPool", [(DOUBLE, (2, 9, 5))], {"k": 2, "k_dynamic": 0.4})
    assert found == [(DOUBLE, (2, 4, 5)), (INT64, (2, 4, 5))]


def test_an_input_that_is_left_out():
    """A 3×2 kernel on 9×8 pixels: 7×7."""
    inputs = [(FLOAT, (1, 4, 9, 8)), (FLOAT, (6, 4, 3, 2)), None]
    assert infer_shapes("FFTConv", inputs, {}) == [(FLOAT, (1, 6, 7, 7))]


def test_attributes_that_the_operator_does_not_have_are_ignored():
    found = infer_shapes("Maxout", [(FLOAT, (1, 6, 2))], {"width": 2, "stride": 2, "odd": "text"})
    assert found[0] == (FLOAT, (1, 3, 2))


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "message"),
    [
        ("Unheard", [], {}, "Unheard: there is no such operator"),
        ("Maxout", [(FLOAT, (1, 6, 2))], {}, "Maxout: attribute 'width' is missing"),
        ("Maxout", [(INT64, (1, 6, 2))], {"width": 2, "stride": 2}, "there is no kernel for int64"),
        ("Maxout", [(99, (1, 6, 2))], {"width": 2, "stride": 2}, "there is no kernel for"),
        ("Maxout", [(FLOAT, (6,))], {"width": 2, "stride": 2}, "must have at least"),
        ("Maxout", [(FLOAT, (1, 6, 2))], {"width": 2.5, "stride": 2}, "'width' has the wrong type"),
        ("Maxout", [(FLOAT, (1,) * 200)], {"width": 1, "stride": 1}, "too many dimensions"),
    ],
)
def test_what_does_not_fit_is_named(name, inputs, attributes, message):
    with pytest.raises(GraphScaleError, match=message):
        infer_shapes(name, inputs, attributes)


def test_algorithms_worth_measuring():
    inputs = [(FLOAT, (1, 8, 32, 32)), (FLOAT, (8, 8, 7, 7))]
    found = algorithms("FFTConv", inputs, {"pads": [3, 3, 3, 3]}, threads=2)
    assert len(found) == len(set(found)) > 1
    assert all(each.split()[0] in ("direct", "winograd", "dense", "depthwise") for each in found)
    assert algorithms("Maxout", [(FLOAT, (1, 4, 3))], {"width": 2, "stride": 2}, threads=1) == []
    with pytest.raises(GraphScaleError, match="Unknown: "):
        algorithms("Unknown", [(FLOAT, (1, 8))], {}, threads=1)
