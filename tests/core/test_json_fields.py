"""Fields of JSON objects are read with their types, or refused with the place where they stand."""

from __future__ import annotations

import json

import pytest

from graphscale.core.json_fields import JsonError, JsonObject

DATA = {
    "name": "a",
    "flag": False,
    "none": None,
    "count": 3,
    "ratio": 0.5,
    "sizes": [1, 2],
    "texts": ["x"],
}


def read(**changes: object) -> JsonObject:
    text = json.dumps({**DATA, **changes})
    return JsonObject(json.loads(text), "plan", list(DATA))


def test_fields_of_each_type() -> None:
    fields = read()
    assert fields.text("name", ("a", "b")) == "a"
    assert fields.optional_text("none") is None
    assert fields.optional_text("name") == "a"
    assert fields.flag("flag") is False
    assert fields.integer("count", 3) == 3
    assert fields.number("ratio") == 0.5
    assert fields.number("count") == 3
    assert fields.sizes("sizes") == [1, 2]
    assert fields.texts("texts") == ["x"]


@pytest.mark.parametrize(
    ("changes", "reader", "arguments", "message"),
    [
        ({"name": 1}, "text", ("name",), "plan.name is a number, not a text"),
        ({}, "text", ("name", ("b", "c")), "plan.name is none of 'b', 'c'"),
        ({"none": []}, "optional_text", ("none",), "plan.none is a list, not a text"),
        ({"flag": 0}, "flag", ("flag",), "plan.flag is a number, not true or false"),
        ({"count": False}, "integer", ("count", 0), "plan.count is False, not a whole number"),
        ({}, "integer", ("count", 4), "plan.count is 3, not between 4 and 2^63 - 1"),
        ({"ratio": float("inf")}, "number", ("ratio",), "plan.ratio is a number (inf), not a fin"),
        ({"ratio": "1"}, "number", ("ratio",), "plan.ratio is a text, not a finite number"),
        ({"sizes": 5}, "sizes", ("sizes",), "plan.sizes is a number, not a list"),
        ({"sizes": [1, 0]}, "sizes", ("sizes",), "plan.sizes[1] is 0, not between 1 and"),
        ({"texts": ["x", {}]}, "texts", ("texts",), "plan.texts[1] is an object, not a text"),
    ],
)
def test_other_values_are_refused(
    changes: dict, reader: str, arguments: tuple, message: str
) -> None:
    with pytest.raises(JsonError) as refused:
        getattr(read(**changes), reader)(*arguments)
    assert str(refused.value).startswith(message)


def test_an_integer_too_large_for_a_float() -> None:
    with pytest.raises(JsonError, match=r"plan\.ratio is a number, not a finite number"):
        read(ratio=10**400).number("ratio")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "plan is a list, not an object"),
        ({}, "plan has no 'name'"),
        ({**DATA, "odd": 1}, "plan has the unknown field 'odd'"),
    ],
)
def test_other_objects_are_refused(value: object, message: str) -> None:
    with pytest.raises(JsonError, match=message):
        JsonObject(value, "plan", list(DATA))
