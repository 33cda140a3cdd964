"""Plans are found in checkpoints of every shape, without torch."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from graphscale.core.state_dicts import METADATA_KEY, plans, state_dicts


class Values(OrderedDict):
    """A state dict as torch makes it: `_metadata` is an attribute, not a key."""


def values(**metadata: object) -> Values:
    result = Values({"conv.weight": np.zeros((2, 2)), "conv.bias": np.zeros(2)})
    result._metadata = OrderedDict({"conv": {"version": 1}, **metadata})
    return result


PLANNED = {"version": 1, METADATA_KEY: "{plan}"}


def test_the_plan_of_a_whole_module_and_of_a_part() -> None:
    """The key of `_metadata` is the path of the module; the weights' names begin with it."""
    (whole,) = plans(values(**{"": PLANNED}))
    assert (whole.path, whole.prefix, whole.plan) == ((), "", "{plan}")
    (part,) = plans(values(**{"module": PLANNED}))
    assert (part.prefix, part.plan) == ("module.", "{plan}")


def test_two_modules_in_one_state_dict() -> None:
    found = plans(values(student=PLANNED, teacher=PLANNED))
    assert [each.prefix for each in found] == ["student.", "teacher."]


def test_trainers_checkpoints_are_searched_to_the_bottom() -> None:
    inner, average = values(**{"": PLANNED}), values(**{"": PLANNED})
    checkpoint = {"epoch": 3, "net": {"weights": inner}, 7: average, "optimizer": {"state": {}}}
    found = plans(checkpoint)
    assert [each.path for each in found] == [("net", "weights"), ("7",)]
    assert [each.values for each in found] == [inner, average]


def test_a_state_dict_without_a_plan_is_found_but_carries_none() -> None:
    lost = {"epoch": 3, "model": dict(values())}
    assert plans(lost) == []
    (found,) = state_dicts(lost)
    assert (found.path, found.prefix, found.plan) == (("model",), "", None)


def test_what_is_no_state_dict() -> None:
    """Mappings with other values, with other keys, or with nothing in them."""
    assert list(state_dicts({"args": {"rate": 0.1}, "state": {0: np.zeros(2)}, "none": {}})) == []


def test_mappings_without_an_end() -> None:
    inner = values(**{"": PLANNED})
    circle = {"net": inner}
    circle["self"] = circle
    assert [each.path for each in plans(circle)] == [("net",)]
    deep = inner
    for _ in range(5000):
        deep = {"x": deep}
    assert plans(deep) == []


def test_metadata_of_other_types_is_no_plan() -> None:
    damaged = values(**{"": {METADATA_KEY: 5}, "conv": None})
    assert plans(damaged) == []
    assert len(list(state_dicts(damaged))) == 1
