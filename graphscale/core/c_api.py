"""Open the compiled library's C API (custom_ops/torch/c_api.h), and ask it what its operators are.

`describe` gives every operator's description, `infer_shapes` the outputs of a call that is not run:
both come from the operator's one description in C++. Running operators on torch's tensors is
`graphscale/layers/library.py`'s part, which uses what stands here. Needs neither torch nor
onnxruntime.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Iterable, Mapping, Sequence

from graphscale.core.errors import GraphScaleError
from graphscale.core.runtime import get_library_path

# The value of an operator's attribute.
AttributeValue = int | float | str | Sequence[int]

_MAX_NUMBERS = 256  # that describe a call's outputs: type, rank and dimensions of each
_ERROR_BYTES = 1024


class _Attribute(ctypes.Structure):
    """`GraphScaleAttribute` of c_api.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("text", ctypes.c_char_p),
        ("integers", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Place(ctypes.Structure):
    """`GraphScalePlace` of c_api.h, without functions for memory: none is taken."""

    _fields_ = [
        ("on_gpu", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
    ]


@functools.cache
def open_library() -> ctypes.CDLL:
    """The library, opened once.

    Raises:
        GraphScaleError: this installation was made without it.
    """
    library = ctypes.CDLL(get_library_path())
    library.graphscale_describe.restype = ctypes.c_char_p
    library.graphscale_cuda_error.restype = ctypes.c_char_p
    return library


@functools.cache
def describe() -> list[dict]:
    """Every operator of the library: name, summary, inputs, outputs, attributes and types.

    Each input and output has a name, a type, a meaning, whether it is optional, and, for inputs,
    whether training changes it (``"trainable"``).
    """
    return json.loads(open_library().graphscale_describe().decode())


@functools.cache
def operator_names() -> frozenset[str]:
    """The names of the library's operators."""
    return frozenset(entry["name"] for entry in describe())


def infer_shapes(
    name: str,
    inputs: Sequence[tuple[int, Sequence[int]] | None],
    attributes: Mapping[str, AttributeValue],
) -> list[tuple[int, tuple[int, ...]]]:
    """ONNX element type and shape of each output of operator `name`, optional ones included.

    Args:
        name: The operator.
        inputs: ONNX element type and shape of each input; None for one that is left out.
        attributes: The attributes that are given; those that the operator does not have are
            ignored.

    Raises:
        GraphScaleError: the types or shapes do not fit the operator; names it and says why.
    """
    numbers: list[int] = []
    for given in inputs:
        # As in c_api.h: address, type (0: left out), rank, dimensions.
        numbers += (0, 0, 0) if given is None else (0, given[0], len(given[1]), *given[1])
    outputs = (ctypes.c_int64 * _MAX_NUMBERS)()
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    failed = open_library().graphscale_infer_shapes(
        name.encode(),
        (ctypes.c_int64 * len(numbers))(*numbers),
        len(inputs),
        attribute_array(tuple(attributes), attributes.values()),
        len(attributes),
        outputs,
        _MAX_NUMBERS,
        error,
        ctypes.c_size_t(_ERROR_BYTES),
    )
    if failed:
        raise GraphScaleError(f"{name}: {error.value.decode(errors='replace')}")
    found = []
    at = 0
    while outputs[at]:  # no type has the number 0, which the array is filled with behind the last
        rank = outputs[at + 1]
        found.append((outputs[at], tuple(outputs[at + 2 : at + 2 + rank])))
        at += 2 + rank
    return found


def algorithms(
    name: str,
    inputs: Sequence[tuple[int, Sequence[int]]],
    attributes: Mapping[str, AttributeValue],
    threads: int,
) -> list[str]:
    """The algorithms of operator `name` that are worth measuring on the CPU for this call.

    They are values of its attribute `algorithm`; the cost model's best comes first. The list is
    empty where the operator has one algorithm.

    Args:
        name: The operator.
        inputs: ONNX element type and shape of each input.
        attributes: The attributes that are given.
        threads: How many threads the call runs on.

    Raises:
        GraphScaleError: the types or shapes do not fit the operator; names it and says why.
    """
    numbers = [each for kind, shape in inputs for each in (0, kind, len(shape), *shape)]
    answer = ctypes.create_string_buffer(_ERROR_BYTES)
    failed = open_library().graphscale_algorithms(
        name.encode(),
        (ctypes.c_int64 * len(numbers))(*numbers),
        len(inputs),
        attribute_array(tuple(attributes), attributes.values()),
        len(attributes),
        ctypes.byref(_Place(0, threads)),
        answer,
        ctypes.c_size_t(_ERROR_BYTES),
    )
    text = answer.value.decode(errors="replace")
    if failed:
        raise GraphScaleError(f"{name}: {text}")
    return text.split(";") if text else []


def attribute_array(names: tuple[str, ...], values: Iterable[AttributeValue]) -> ctypes.Array:
    """The attributes of a call, as the functions of the C API take them."""
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    return _constant_attributes(names, *values)


# Attributes hardly change from call to call, and the library only reads them.
@functools.lru_cache(maxsize=4096, typed=True)
def _constant_attributes(names: tuple[str, ...], *values: AttributeValue) -> ctypes.Array:
    array = (_Attribute * len(names))()
    for entry, name, value in zip(array, names, values):
        entry.name = name.encode()
        if isinstance(value, int):
            entry.kind, entry.integer = 0, value
        elif isinstance(value, float):
            entry.kind, entry.number = 1, value
        elif isinstance(value, str):
            entry.kind, entry.text = 2, value.encode()
        else:
            entry.kind, entry.count = 3, len(value)
            entry.integers = (ctypes.c_int64 * len(value))(*value)
    return array
