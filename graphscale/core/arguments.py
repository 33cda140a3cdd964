"""Check arguments of public functions: an error names the argument, what it is, and what to give.

In: an argument's name, as users know it, and its value. Out: the value as Python's own number,
text, tuple or path. A number may be one of numpy's or torch's.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphscale.core.errors import GraphScaleError

_LARGEST = 2**63 - 1  # of the whole numbers that torch and the kernels take


def wrong(name: str, value: object, wanted: str) -> GraphScaleError:
    """The error for an argument that is no `wanted`."""
    plain = value is None or isinstance(
        value, bool | int | float | complex | str | bytes | list | tuple | set | Mapping
    )
    shown = reprlib.repr(value) if plain else f"of type {type(value).__name__}"
    return GraphScaleError(f"{name} is {' '.join(shown.split())}; give {wanted}")


def whole_number(name: str, value: Any, least: int | None = None, most: float = _LARGEST) -> int:
    """A whole number, from `least` to `most`.

    Raises:
        GraphScaleError: `value` is something else.
    """
    try:
        number = operator.index(value)
    except Exception:  # numpy and torch have their own for what is no single whole number
        number = None
    if number is None or number > most or (least is not None and number < least):
        usual = most == _LARGEST and (number is None or number <= most)
        raise wrong(name, value, f"a whole number{_bounds(least, None if usual else most)}")
    return number


def whole_numbers(name: str, value: Any, wanted: str, least: int = 1) -> tuple[int, ...]:
    """One whole number of at least `least`, or several; `wanted` says what to give.

    Raises:
        GraphScaleError: `value` is something else, or empty.
    """
    try:
        listed = [] if isinstance(value, bytes | Mapping) else list(value)
    except TypeError:  # it cannot be iterated over
        listed = [value]
    try:
        numbers = tuple(whole_number(name, each, least) for each in listed)
    except GraphScaleError:
        numbers = ()
    if not numbers:
        raise wrong(name, value, wanted)
    return numbers


def real_number(
    name: str, value: Any, least: float | None = None, most: float | None = None
) -> float:
    """A finite number, from `least` to `most`.

    Raises:
        GraphScaleError: `value` is something else.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except Exception:  # as above; too large a whole number is an OverflowError
        number = math.nan
    low = least is not None and number < least
    if not math.isfinite(number) or low or (most is not None and number > most):
        raise wrong(name, value, f"a number{_bounds(least, most)}")
    return number


def positive_number(name: str, value: Any) -> float:
    """A finite number above zero.

    Raises:
        GraphScaleError: `value` is something else.
    """
    try:
        number = real_number(name, value, 0)
    except GraphScaleError:
        number = 0
    if number == 0:
        raise wrong(name, value, "a number above 0")
    return number


def height_and_width(name: str, value: Any) -> tuple[int, int]:
    """Two whole numbers of at least 1; a single one is for both.

    Raises:
        GraphScaleError: `value` is something else.
    """
    try:
        numbers = tuple(value) if isinstance(value, Iterable) else (value, value)
        height, width = (whole_number(name, each, 1, 2**31 - 1) for each in numbers)
    except Exception:  # as above, and another count of numbers
        wanted = "height and width, or one number for both, of at least 1"
        raise wrong(name, value, wanted) from None
    return height, width


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the texts `choices`.

    Raises:
        GraphScaleError: `value` is something else.
    """
    if not isinstance(value, str) or value not in choices:
        raise wrong(name, value, f"{', '.join(choices[:-1])} or {choices[-1]}")
    return value


def texts(name: str, value: Any) -> list[str]:
    """A list of texts; a single text is none, since it would be taken letter by letter.

    Raises:
        GraphScaleError: `value` is something else.
    """
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    try:
        entries = list(value) if listed else [None]
    except TypeError:  # an array or tensor of no dimensions
        entries = [None]
    if not all(isinstance(each, str) for each in entries):
        raise wrong(name, value, "a list of texts")
    return entries


def instance(name: str, value: Any, kind: Any, wanted: str) -> Any:
    """An object of the class `kind`, or of one of several; `wanted` says what to give.

    Raises:
        GraphScaleError: `value` is something else.
    """
    if not isinstance(value, kind):
        raise wrong(name, value, wanted)
    return value


def file_path(name: str, value: Any) -> Path:
    """A path of the file system.

    Raises:
        GraphScaleError: `value` is something else.
    """
    try:
        return Path(value)
    except TypeError:
        raise wrong(name, value, "a path") from None


def _bounds(least: float | None, most: float | None) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" of at least {least}"
    return f" of at most {most}" if least is None else f" from {least} to {most}"
