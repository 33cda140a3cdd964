"""Conversion of tensors and element types between onnx-ir and torch, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
}


def torch_dtype(dtype: ir.DataType | int) -> torch.dtype:
    """The torch dtype of an ONNX element type.

    Raises:
        KeyError: torch has no such type.
    """
    return _DTYPES[ir.DataType(dtype)]


def to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
    """A torch copy of `tensor`, in its own dtype."""
    dtype = torch_dtype(tensor.dtype)
    array = np.array(tensor.numpy())  # a copy: the original may be a read-only view of the file
    if array.dtype.kind in "biufc" and array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"u{array.itemsize}")).view(dtype)


def from_torch(values: torch.Tensor, like: ir.TensorProtocol, name: str) -> ir.Tensor:
    """`values` (any dtype and device) as an ONNX tensor of `like`'s dtype, named `name`.

    The tensor's data is in main memory. It shares memory with `values` where no conversion is
    needed.
    """
    values = values.detach().to("cpu", torch_dtype(like.dtype)).contiguous()
    numpy_dtype = like.dtype.numpy()
    if values.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        raw = values.view(torch.int16 if values.itemsize == 2 else torch.int8).numpy()
        return ir.Tensor(raw.view(numpy_dtype), like.dtype, name=name)
    return ir.Tensor(values.numpy(), like.dtype, name=name)
