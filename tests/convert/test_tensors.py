"""Tensors keep every bit on their way between onnx-ir and torch."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.convert.tensors import from_torch, to_torch, torch_dtype

# Every type that both know, with the numpy type of the same bits.
TYPES = {
    ir.DataType.FLOAT: (torch.float32, np.float32),
    ir.DataType.DOUBLE: (torch.float64, np.float64),
    ir.DataType.FLOAT16: (torch.float16, np.float16),
    ir.DataType.BFLOAT16: (torch.bfloat16, ml_dtypes.bfloat16),
    ir.DataType.FLOAT8E4M3FN: (torch.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
    ir.DataType.FLOAT8E5M2: (torch.float8_e5m2, ml_dtypes.float8_e5m2),
    ir.DataType.INT8: (torch.int8, np.int8),
    ir.DataType.INT16: (torch.int16, np.int16),
    ir.DataType.INT32: (torch.int32, np.int32),
    ir.DataType.INT64: (torch.int64, np.int64),
    ir.DataType.UINT8: (torch.uint8, np.uint8),
    ir.DataType.UINT16: (torch.uint16, np.uint16),
    ir.DataType.UINT32: (torch.uint32, np.uint32),
    ir.DataType.UINT64: (torch.uint64, np.uint64),
    ir.DataType.BOOL: (torch.bool, np.bool_),
    ir.DataType.COMPLEX64: (torch.complex64, np.complex64),
    ir.DataType.COMPLEX128: (torch.complex128, np.complex128),
}


@pytest.mark.parametrize("dtype", TYPES, ids=lambda each: each.name)
def test_every_bit_there_and_back(dtype: ir.DataType) -> None:
    """Random bits, so infinities, NaN and numbers below the smallest normal one among them."""
    wanted, numpy_dtype = TYPES[dtype]
    size = np.dtype(numpy_dtype).itemsize
    bits = np.random.default_rng(0).integers(0, 256, 6 * size).astype(np.uint8)
    array = (bits % 2 if dtype == ir.DataType.BOOL else bits).view(numpy_dtype).reshape(2, 3)
    tensor = ir.Tensor(array, dtype, name="w")
    found = to_torch(tensor)
    assert (found.dtype, found.shape) == (wanted, (2, 3))
    assert found.flatten().view(torch.uint8).numpy().tobytes() == array.tobytes()
    again = from_torch(found, tensor, "again")
    assert (again.name, again.dtype, tuple(again.shape)) == ("again", dtype, (2, 3))
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    for dtype in (ir.DataType.FLOAT, ir.DataType.BFLOAT16):
        tensor = ir.Tensor(np.zeros(shape, TYPES[dtype][1]), dtype, name="w")
        assert to_torch(tensor).shape == shape
        assert tuple(from_torch(to_torch(tensor), tensor, "w").shape) == shape


def test_a_torch_tensor_is_a_copy() -> None:
    """The original may be a part of a file that is mapped into memory and cannot be written."""
    array = np.arange(3, dtype=np.float32)
    array.flags.writeable = False
    found = to_torch(ir.Tensor(array, name="w"))
    found += 1
    assert array.tolist() == [0, 1, 2]


def test_values_are_converted_to_the_files_type() -> None:
    """Rounded as torch rounds, whatever type, strides and gradient the values have."""
    like = ir.Tensor(np.zeros((2, 2), ml_dtypes.bfloat16), ir.DataType.BFLOAT16, name="w")
    values = torch.tensor([[1.0, 1.001], [3.14159, -1e-3]], dtype=torch.float64).T.requires_grad_()
    found = from_torch(values, like, "w").numpy().astype(np.float64)
    np.testing.assert_array_equal(found, values.detach().bfloat16().double().numpy())


def test_memory_is_shared_where_nothing_is_converted() -> None:
    values = torch.zeros(2, 2)
    like = ir.Tensor(np.zeros((2, 2), np.float32), name="w")
    tensor = from_torch(values, like, "w")
    values[0, 0] = 5
    assert tensor.numpy()[0, 0] == 5


def test_a_type_that_torch_lacks_is_refused_by_the_tensors_name() -> None:
    with pytest.raises(GraphScaleError, match=r"no tensors of ONNX's type STRING; convert"):
        torch_dtype(ir.DataType.STRING)
    tensor = ir.StringTensor([b"cat"], shape=ir.Shape([1]), name="labels")
    with pytest.raises(GraphScaleError, match=r"tensor 'labels': .*STRING"):
        to_torch(tensor)
