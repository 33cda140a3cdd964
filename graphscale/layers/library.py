"""The kernel library's door for torch: ctypes on data pointers, so one build serves every torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
from collections.abc import Mapping, Sequence

import torch

from graphscale.errors import GraphScaleError
from graphscale.runtime import get_library_path

# As ONNX numbers its element types.
ONNX_TYPES = {
    torch.float32: 1,
    torch.int32: 6,
    torch.int64: 7,
    torch.float16: 10,
    torch.float64: 11,
    torch.uint32: 12,
    torch.bfloat16: 16,
}
_ErrorText = ctypes.c_char * 1024
_ERROR_SIZE = ctypes.c_size_t(ctypes.sizeof(_ErrorText))
_ANYWHERE = contextlib.nullcontext()
_SCALARS = (int, float, str)


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("memory", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Attribute(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("text", ctypes.c_char_p),
        ("integers", ctypes.POINTER(ctypes.c_int64)),
    ]


_Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Place(ctypes.Structure):
    _fields_ = [
        ("on_gpu", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("allocate", _Allocate),
        ("release", _Release),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(get_library_path())
    library.graphscale_describe.restype = ctypes.c_char_p
    library.graphscale_cuda_error.restype = ctypes.c_char_p
    return library


def describe() -> list[dict]:
    """Every operator of the library: name, summary, inputs, outputs, attributes and types."""
    return json.loads(_library().graphscale_describe().decode())


def cuda_error() -> str:
    """Why the CUDA kernels are not there; empty when they are."""
    return _library().graphscale_cuda_error().decode()


def run(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    outputs: Sequence[torch.Tensor],
    attributes: Mapping[str, int | float | str | Sequence[int]],
) -> None:
    """Run operator ``name``, writing into ``outputs``.

    All tensors lie on one device; outputs are contiguous and have the right shapes. Raises
    GraphScaleError with the operator's name for what the kernel cannot use.
    """
    given = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    device = _common_device(name, [*given, *outputs])
    error = _ErrorText()
    with _current(device):
        failed = _library().graphscale_run(
            name.encode(),
            _views(name, given),
            len(given),
            _views(name, outputs),
            len(outputs),
            _attribute_array(attributes),
            len(attributes),
            ctypes.byref(_place(device)),
            error,
            _ERROR_SIZE,
        )
    if failed:
        raise GraphScaleError(f"{name}: {error.value.decode(errors='replace')}")


def plans(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    attributes: Mapping[str, int | float | str | Sequence[int]],
) -> list[str]:
    """Values of the attribute ``plan`` worth measuring, cheapest by the cost model first.

    Empty where operator ``name`` has nothing to choose. Raises GraphScaleError as ``run`` does.
    """
    device = _common_device(name, inputs)
    answer = _ErrorText()
    with _current(device):
        failed = _library().graphscale_plans(
            name.encode(),
            _views(name, inputs),
            len(inputs),
            _attribute_array(attributes),
            len(attributes),
            ctypes.byref(_place(device)),
            answer,
            _ERROR_SIZE,
        )
    text = answer.value.decode(errors="replace")
    if failed:
        raise GraphScaleError(f"{name}: {text}")
    return text.split(";") if text else []


def _common_device(name: str, tensors: Sequence[torch.Tensor | None]) -> torch.device:
    device = None
    for tensor in tensors:
        if tensor is None or tensor.device == device:
            continue
        if device is not None:
            names = " and ".join(sorted([str(device), str(tensor.device)]))
            raise GraphScaleError(
                f"{name}: its tensors are on {names}; put all of them on one device"
            )
        device = tensor.device
    return device


def _views(name: str, tensors: Sequence[torch.Tensor | None]) -> ctypes.Array:
    views = (_Tensor * len(tensors))()
    for view, tensor in zip(views, tensors):
        if tensor is None:
            continue
        number = ONNX_TYPES.get(tensor.dtype)
        if number is None:
            raise GraphScaleError(f"{name}: there is no kernel for {tensor.dtype}; convert it")
        shape = tensor.shape
        view.__init__(tensor.data_ptr(), number, len(shape), (ctypes.c_int64 * len(shape))(*shape))
    return views


def _attribute_array(attributes: Mapping[str, int | float | str | Sequence[int]]) -> ctypes.Array:
    return _constant_attributes(
        tuple(
            (name, type(value), value if isinstance(value, _SCALARS) else tuple(value))
            for name, value in attributes.items()
        )
    )


# They hardly change from call to call, and the library only reads them.
@functools.lru_cache(maxsize=4096)
def _constant_attributes(attributes: tuple[tuple[str, type, object], ...]) -> ctypes.Array:
    array = (_Attribute * len(attributes))()
    for entry, (name, _, value) in zip(array, attributes):
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


def _current(device: torch.device) -> contextlib.AbstractContextManager:
    """Makes a GPU the current one: kernels start, and scratch is allocated, there."""
    return torch.cuda.device(device) if device.type == "cuda" else _ANYWHERE


def _place(device: torch.device) -> _Place:
    if device.type == "cpu":
        return _cpu_place(torch.get_num_threads())
    stream = torch.cuda.current_stream(device).cuda_stream
    return _Place(1, 1, stream, *_cuda_memory())


@functools.cache
def _cpu_place(threads: int) -> _Place:
    return _Place(0, threads, None, _Allocate(), _Release())


@functools.cache
def _cuda_memory() -> tuple[_Allocate, _Release]:
    """GPU scratch from torch's caching allocator, on the current stream."""

    def allocate(size: int) -> int:
        try:
            return torch.cuda.caching_allocator_alloc(size, stream=torch.cuda.current_stream())
        except RuntimeError:
            return 0

    return _Allocate(allocate), _Release(torch.cuda.caching_allocator_delete)
