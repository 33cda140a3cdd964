"""Read JSON objects field by field, each with the type that it must have.

In goes what `json.loads` made of a text that anybody may have written; out come fields of known
types and ranges. What does not fit ends in a `JsonError` that names the place, as in
'weights[0].factors is a number, not a list'.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from math import isfinite
from typing import TypeVar

_MAX_INTEGER = 2**63 - 1  # what a 64-bit integer holds: no size or count is larger

T = TypeVar("T")


class JsonError(ValueError):
    """A field is missing, of another type, or out of range."""


class JsonObject:
    """A JSON object that has exactly the fields of these names.

    Args:
        value: What json.loads gave.
        place: How messages call it; empty for the whole text.
        names: The names of its fields.
        optional: Those of them that it may lack.

    Raises:
        JsonError: `value` is no object, lacks a field, or has another.
    """

    def __init__(
        self, value: object, place: str, names: Collection[str], optional: Collection[str] = ()
    ) -> None:
        if not isinstance(value, dict):
            raise JsonError(f"{place or 'it'} is {_kind(value)}, not an object")
        for name in names:
            if name not in value and name not in optional:
                raise JsonError(f"{place or 'it'} has no {name!r}")
        for name in value:
            if name not in names:
                raise JsonError(f"{place or 'it'} has the unknown field {name!r}")
        self._value = value
        self._place = place

    def text(self, name: str, choices: Collection[str] | None = None) -> str:
        """A string; one of `choices` where these are given."""
        found = text(self._value[name], self.place(name))
        if choices is not None and found not in choices:
            raise JsonError(f"{self.place(name)} is none of {', '.join(map(repr, choices))}")
        return found

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self._value[name] is None else self.text(name)

    def integer(self, name: str, minimum: int) -> int:
        """A whole number of at least `minimum`."""
        return integer(self._value[name], self.place(name), minimum)

    def flag(self, name: str) -> bool:
        """True or false."""
        found = self._value[name]
        if not isinstance(found, bool):
            raise JsonError(f"{self.place(name)} is {_kind(found)}, not true or false")
        return found

    def number(self, name: str) -> float:
        """A finite number."""
        return number(self._value[name], self.place(name))

    def list(self, name: str, read: Callable[[object, str], T]) -> list[T]:
        """A list, each entry read by `read(entry, place)`."""
        return [read(*entry) for entry in entries(self._value[name], self.place(name))]

    def sizes(self, name: str) -> list[int]:
        """A list of whole numbers of at least 1."""
        return self.list(name, size)

    def whole_numbers(self, name: str) -> list[int]:
        """A list of whole numbers of at least 0."""
        return self.list(name, lambda value, place: integer(value, place, 0))

    def has(self, name: str) -> bool:
        """Whether an optional field is there."""
        return name in self._value

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        return self.list(name, text)

    def get(self, name: str) -> object:
        """A field as it is, to be read by other means."""
        return self._value[name]

    def place(self, name: str) -> str:
        """How messages call a field."""
        return f"{self._place}.{name}" if self._place else name


def entries(value: object, place: str) -> Iterator[tuple[object, str]]:
    """The entries of a list, each with its place."""
    if not isinstance(value, list):
        raise JsonError(f"{place} is {_kind(value)}, not a list")
    for index, entry in enumerate(value):
        yield entry, f"{place}[{index}]"


def text(value: object, place: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise JsonError(f"{place} is {_kind(value)}, not a text")
    return value


def number(value: object, place: str) -> float:
    """A finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Beyond 64 bits an integer may be too large for a float, which isfinite would fail on.
    if not is_number or abs(value) > _MAX_INTEGER or not isfinite(value):
        raise JsonError(f"{place} is {_kind(value)}, not a finite number")
    return value


def size(value: object, place: str) -> int:
    """A whole number of at least 1."""
    return integer(value, place, 1)


def integer(value: object, place: str, minimum: int) -> int:
    """A whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise JsonError(f"{place} is {_kind(value)}, not a whole number")
    if not minimum <= value <= _MAX_INTEGER:
        raise JsonError(f"{place} is {str(value)[:20]}, not between {minimum} and 2^63 - 1")
    return value


def _kind(value: object) -> str:
    """What a value is, in words."""
    if value is None or isinstance(value, bool):
        return str(value)
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    name = names.get(type(value), "something else")
    return f"{name} ({value})" if isinstance(value, float) else name
