"""Read and write ONNX models through onnx-ir, leaving large weights on disk until they are used."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphscale.core import wire
from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular, replacing

ModelLike = str | os.PathLike | onnx.ModelProto | ir.Model

_INLINE = "#inline"  # external-data location of tensors that stand in the model file itself
_SMALL = 1024  # bytes; smaller tensors are kept in the message
_LARGEST_MESSAGE = 2**31 - 1  # bytes; protobuf's limit for one file
_ALIGNMENT = 4096  # bytes, of tensors in external data


def load_model(source: ModelLike) -> ir.Model:
    """The model at a path, or in memory, as an onnx-ir model.

    Weights of 1 KiB and more stay on disk, memory-mapped. A model given in memory is copied (the
    graph, not the weights), so that callers may change the result.

    Raises:
        GraphScaleError: no such file, not an ONNX file, truncated, or external data is missing.
    """
    if isinstance(source, ir.Model):
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source, "the model in memory", Path.cwd(), b"")
    path = Path(source)
    data = _map(path, f"{path}: cannot be read ({{}}); give the path of an ONNX model")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(wire.detach(memoryview(data), _INLINE))
    except wire.WireError as error:
        raise GraphScaleError(
            f"{path}: not an ONNX file, or a truncated one ({error}); export or copy it again"
        ) from None
    except DecodeError:
        raise GraphScaleError(f"{path}: not an ONNX file; give the path of an ONNX model") from None
    return _from_proto(proto, str(path), path.parent, data)


def save_model(
    model: ir.Model,
    path: str | os.PathLike,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write `model`, streaming its weights; beside it `path`.data if it exceeds 2 GiB.

    `progress` is told after each weight how many bytes of how many are written.

    Raises:
        GraphScaleError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    with detached(model) as tensors:
        skeleton = ir.to_proto(model).SerializeToString()
    sizes = [tensor.nbytes for tensor in tensors]
    total = sum(sizes)
    if len(skeleton) + total < _LARGEST_MESSAGE:
        with replacing(path) as (file,):
            for piece in wire.attach(skeleton, _INLINE, sizes):
                if isinstance(piece, int):
                    _write(tensors[piece], file)
                    progress(file.tell(), total)
                else:
                    file.write(piece)
        return
    data_path = path.with_name(path.name + ".data")
    with replacing(data_path, path) as (data_file, file):
        offsets = []
        for tensor in tensors:
            data_file.seek(-data_file.tell() % _ALIGNMENT, os.SEEK_CUR)
            offsets.append(data_file.tell())
            _write(tensor, data_file)
            progress(data_file.tell(), total)
        with detached(model, data_path.name, offsets):
            file.write(ir.to_proto(model).SerializeToString())


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` as an onnx.ModelProto that holds all its weights."""
    return ir.to_proto(model)


def constant_tensors(graph: ir.Graph | ir.Function) -> Iterator[tuple[ir.Node, str, ir.Attr]]:
    """(node, attribute name, attribute) of each tensor held by a node, such as Constant's value."""
    for node in graph.all_nodes():
        for name, attribute in node.attributes.items():
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                yield node, name, attribute


def _from_proto(proto: onnx.ModelProto, name: str, folder: Path, inline: mmap.mmap) -> ir.Model:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise GraphScaleError(f"{name}: holds no ONNX graph; give the path of an ONNX model")
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of is an error of ours, in one sentence
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise GraphScaleError(
            f"{name}: not a valid ONNX model ({error}); export it again"
        ) from error
    finally:
        logger.setLevel(level)
    for graph in [model.graph, *model.functions.values()]:
        if "ai.onnx" in graph.opset_imports:  # the other name of the domain ""
            graph.opset_imports.setdefault("", graph.opset_imports.pop("ai.onnx"))
    _check_nodes(model, name)
    model.meta["source"] = name
    files: dict[str, mmap.mmap] = {_INLINE: inline}

    def resolve(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        location = str(tensor.location)
        if location not in files:
            path = folder / location
            if Path(location).is_absolute() or ".." in Path(location).parts:
                raise GraphScaleError(
                    f"{name}: the external data file {location!r} of tensor {tensor.name!r} stands "
                    "outside the model's folder; put it beside the model"
                )
            if not path.is_file():
                raise GraphScaleError(
                    f"{name}: the external data file {location!r} of tensor {tensor.name!r} is "
                    f"missing; put it beside the model"
                )
            files[location] = _map(path, f"{path}: external data cannot be read ({{}})")
        return _mapped(tensor, files[location], name)

    for graph in model.graphs():
        for value in graph.initializers.values():
            value.const_value = resolve(value.const_value)
    for graph in [model.graph, *model.functions.values()]:
        for node, key, attribute in list(constant_tensors(graph)):
            if isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[key] = ir.AttrTensor(key, resolve(attribute.value))
    return model


def _check_nodes(model: ir.Model, name: str) -> None:
    """Raise for names that are no text (protobuf hands them on as bytes) and untyped attributes."""
    for node in model.graph.all_nodes():
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        texts = [node.name, node.op_type, node.domain, *(value.name for value in values)]
        if node.domain == "":
            texts += [each.value for each in node.attributes.values() if not each.is_ref()]
        untyped = [each.type == ir.AttributeType.UNDEFINED for each in node.attributes.values()]
        if any(untyped) or any(isinstance(text, bytes) for text in texts):
            raise GraphScaleError(
                f"{name}: node {node.name!r} is damaged (text that is not UTF-8, or an attribute "
                "without a type); export or copy the file again"
            )


def _mapped(tensor: ir.ExternalTensor, data: mmap.mmap, name: str) -> ir.TensorProtocol:
    """`tensor` as a view of the mapped file."""
    offset = tensor.offset or 0
    if offset + tensor.nbytes > len(data):
        raise GraphScaleError(
            f"{name}: tensor {tensor.name!r} ends behind the end of its data file; "
            "the file is truncated, copy it again"
        )
    if tensor.dtype.bitwidth < 8:
        array = np.frombuffer(data, np.uint8, tensor.nbytes, offset)
        return ir.PackedTensor(array, tensor.dtype, shape=tensor.shape, name=tensor.name)
    array = np.frombuffer(data, tensor.dtype.numpy(), tensor.size, offset)
    return ir.Tensor(
        array.reshape(tensor.shape.numpy()), tensor.dtype, shape=tensor.shape, name=tensor.name
    )


def _map(path: Path, message: str) -> mmap.mmap | bytes:
    try:
        check_regular(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GraphScaleError(message.format(reason)) from None


@contextlib.contextmanager
def detached(
    model: ir.Model, location: str = _INLINE, offsets: list[int] | None = None
) -> Iterator[list[ir.TensorProtocol]]:
    """Inside the block the model's large tensors are mere references to `location`.

    The i-th of them, as yielded, refers to offsets[i], or to i itself without `offsets`.
    """
    tensors: list[ir.TensorProtocol] = []

    def reference(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        index = len(tensors)
        tensors.append(tensor)
        offset = offsets[index] if offsets else index
        return ir.ExternalTensor(
            location, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=tensor.name
        )

    def large(tensor: ir.TensorProtocol | None) -> bool:
        return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SMALL

    with contextlib.ExitStack() as restore:
        for graph in model.graphs():
            for value in graph.initializers.values():
                if large(value.const_value):
                    restore.callback(setattr, value, "const_value", value.const_value)
                    value.const_value = reference(value.const_value)
        for graph in [model.graph, *model.functions.values()]:
            for node, key, attribute in list(constant_tensors(graph)):
                if large(attribute.value):
                    restore.callback(node.attributes.__setitem__, key, attribute)
                    node.attributes[key] = ir.AttrTensor(key, reference(attribute.value))
        yield tensors


def _write(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Write a tensor's bytes without a second copy of them."""
    if isinstance(tensor, ir.LazyTensor):
        tensor = tensor.raw()
    if isinstance(tensor, ir.Tensor) and isinstance(tensor.raw, np.ndarray):
        array = np.ascontiguousarray(tensor.raw)
        file.write(memoryview(array.reshape(-1).view(np.uint8)))
    else:
        file.write(tensor.tobytes())
