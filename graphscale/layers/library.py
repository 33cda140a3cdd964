"""Calls the compiled kernel library from torch, through its C API (custom_ops/torch/c_api.h).

Tensors and attributes go in; `run` writes an operator's outputs, `algorithms` lists what can be
measured. The C API takes data pointers and no torch types, so that one build of the library serves
every version of torch. What needs no torch stands in `graphscale/core/c_api.py`.
"""

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
_NO_DEVICE = contextlib.nullcontext()
_CPU = torch.device("cpu")
_LEFT_OUT = (0, 0, 0)  # an input that is left out: no memory, no type, no dimensions
_Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Place(ctypes.Structure):
    """GraphScalePlace of c_api.h: where and how a call runs."""

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

    The operator's C++ description adds these inputs by ``weight`` or ``optional_weight``.
    """
    inputs = next(entry["inputs"] for entry in describe() if entry["name"] == name)
    return tuple(i for i, value in enumerate(inputs) if value["trainable"])


def cuda_error() -> str:
    """Why the CUDA kernels cannot be used; empty where they can."""
    return open_library().graphscale_cuda_error().decode()


def run(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    outputs: Sequence[torch.Tensor],
    attributes: ctypes.Array,
) -> None:
    """Run operator ``name`` on ``inputs`` and write its results into ``outputs``.

    Args:
        inputs: Tensors on one device; None for an input that is left out.
        outputs: Contiguous tensors on that device, with the shapes that follow from the inputs.
            Optional outputs at the end may be left out.
        attributes: From `attribute_array`.

    Raises:
        GraphScaleError: the kernel refuses the inputs; the message starts with ``name``.
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
    """The values of the attribute ``algorithm`` that are worth measuring for this call.

    The cost model's best comes first. The list is empty where operator ``name`` has one algorithm.
    Raises GraphScaleError for types, attributes and shapes that `run` refuses.
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
    """The one device of all tensors; raises GraphScaleError for two. A CPU is found fastest."""
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
    """Pack tensors as c_api.h wants them: data pointer, type, rank and sizes of each, as int64."""
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
    """Make a GPU the current one, on which kernels start and scratch memory is allocated."""
    return _NO_DEVICE if device is _CPU else torch.cuda.device(device)


def _place(device: torch.device) -> object:
    """Threads of a CPU, or stream and allocator of a GPU, as a pointer to `_Place`."""
    if device is _CPU:
        return _cpu_place(torch.get_num_threads())
    stream = torch.cuda.current_stream(device).cuda_stream
    return ctypes.byref(_Place(1, 1, stream, *_cuda_memory()))


@functools.cache
def _cpu_place(threads: int) -> object:
    return ctypes.byref(_Place(0, threads, None, _Allocate(), _Release()))


@functools.cache
def _cuda_memory() -> tuple[_Allocate, _Release]:
    """Functions that take scratch memory from torch's caching allocator, and give it back."""

    def allocate(size: int) -> int:
        try:
            return torch.cuda.caching_allocator_alloc(size, stream=torch.cuda.current_stream())
        except RuntimeError:
            return 0

    return _Allocate(allocate), _Release(torch.cuda.caching_allocator_delete)
