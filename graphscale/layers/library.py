"""The kernel library's C API for torch. It passes data pointers: one build serves every torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
from collections.abc import Mapping, Sequence

import torch

from graphscale.core.c_api import attribute_array, describe, open_library
from graphscale.core.errors import GraphScaleError

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
_CPU = torch.device("cpu")
_LEFT_OUT = (0, 0, 0)
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
def trainable_inputs(name: str) -> tuple[int, ...]:
    """Positions of the inputs of operator ``name`` that training changes: weights and biases.

    They are those that its C++ description adds by ``weight`` or ``optional_weight``.
    """
    inputs = next(entry["inputs"] for entry in describe() if entry["name"] == name)
    return tuple(i for i, value in enumerate(inputs) if value["trainable"])


def cuda_error() -> str:
    """Why the CUDA kernels are not there; empty when they are."""
    return open_library().graphscale_cuda_error().decode()


def run(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    outputs: Sequence[torch.Tensor],
    attributes: ctypes.Array,
) -> None:
    """Run operator ``name``, writing into ``outputs``; ``attributes`` are ``attribute_array``'s.

    All tensors lie on one device; outputs are contiguous and have the right shapes; optional ones
    at the end may be left out. Raises GraphScaleError with the operator's name for what the kernel
    cannot use.
    """
    given = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    given += outputs
    device = _common_device(name, given)
    error = _ErrorText()
    with _current(device):
        failed = open_library().graphscale_run(
            name.encode(),
            _numbers(name, given),
            len(inputs),
            len(outputs),
            attributes,
            len(attributes),
            _place(device),
            error,
            _ERROR_SIZE,
        )
    if failed:
        raise GraphScaleError(f"{name}: {error.value.decode(errors='replace')}")


def algorithms(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    attributes: Mapping[str, int | float | str | Sequence[int]],
) -> list[str]:
    """Values of the attribute ``algorithm`` worth measuring, cheapest by the cost model first.

    Empty where operator ``name`` has nothing to choose. Raises GraphScaleError as ``run`` does.
    """
    device = _common_device(name, inputs)
    answer = _ErrorText()
    with _current(device):
        failed = open_library().graphscale_algorithms(
            name.encode(),
            _numbers(name, inputs),
            len(inputs),
            attribute_array(tuple(attributes), attributes.values()),
            len(attributes),
            _place(device),
            answer,
            _ERROR_SIZE,
        )
    text = answer.value.decode(errors="replace")
    if failed:
        raise GraphScaleError(f"{name}: {text}")
    return text.split(";") if text else []


def _common_device(name: str, tensors: Sequence[torch.Tensor | None]) -> torch.device:
    for tensor in tensors:
        if tensor is not None and not tensor.is_cpu:
            return _common_gpu(name, tensors)
    return _CPU


def _common_gpu(name: str, tensors: Sequence[torch.Tensor | None]) -> torch.device:
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


def _numbers(name: str, tensors: Sequence[torch.Tensor | None]) -> bytes:
    """Tensors in the layout of custom_ops/torch/c_api.h: one flat list, made anew for each call."""
    numbers = []
    for tensor in tensors:
        if tensor is None:
            numbers += _LEFT_OUT
            continue
        shape = tensor.shape
        try:
            numbers += (tensor.data_ptr(), ONNX_TYPES[tensor.dtype], len(shape), *shape)
        except KeyError:
            raise GraphScaleError(
                f"{name}: there is no kernel for {tensor.dtype}; convert it"
            ) from None
    return _packer(len(numbers)).pack(*numbers)


@functools.cache
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"{count}q")


def _current(device: torch.device) -> contextlib.AbstractContextManager:
    """Makes a GPU the current one: kernels start, and scratch is allocated, there."""
    return _ANYWHERE if device is _CPU else torch.cuda.device(device)


def _place(device: torch.device) -> object:
    """Where and how a call runs, by reference."""
    if device is _CPU:
        return _cpu_place(torch.get_num_threads())
    stream = torch.cuda.current_stream(device).cuda_stream
    return ctypes.byref(_Place(1, 1, stream, *_cuda_memory()))


@functools.cache
def _cpu_place(threads: int) -> object:
    return ctypes.byref(_Place(0, threads, None, _Allocate(), _Release()))


@functools.cache
def _cuda_memory() -> tuple[_Allocate, _Release]:
    """GPU scratch from torch's caching allocator, on the current stream."""

    def allocate(size: int) -> int:
        try:
            return torch.cuda.caching_allocator_alloc(size, stream=torch.cuda.current_stream())
        except RuntimeError:
            return 0

    return _Allocate(allocate), _Release(torch.cuda.caching_allocator_delete)
