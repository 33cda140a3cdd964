"""Read and write ONNX models; large weights stay on disk until they are used.

In goes a path, an onnx message or an onnx-ir model; out comes an onnx-ir model whose weights are
views of memory-mapped files. Writing streams one weight after another.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphscale.core import wire
from graphscale.core.dense_tensors import with_dense_tensors
from graphscale.core.detached_tensors import detached, node_tensors
from graphscale.core.errors import GraphScaleError
from graphscale.core.external_data import INLINE, ExternalData, map_file
from graphscale.core.files import check_regular, replacing
from graphscale.core.quiet import quiet_reading
from graphscale.core.well_formed import (
    check_nodes,
    check_order,
    check_texts,
    check_versions,
    checked_tensor,
)

ModelLike = str | os.PathLike | onnx.ModelProto | ir.Model

_MAX_MESSAGE = 2**31 - 1  # bytes; protobuf's limit for one file
_ALIGNMENT = 4096  # bytes, of tensors in external data
_ZIP = b"PK\x03\x04"  # how a zip archive begins


def load_model(source: ModelLike) -> ir.Model:
    """The model at a path, or in memory, as an onnx-ir model.

    Weights of 1 KiB and more stay on disk, memory-mapped. A model given in memory is copied (the
    graph, not the weights), so that callers may change the result. `meta` of a model from a file
    has its path as "source" and all files that it was read from as "files".

    Raises:
        GraphScaleError: the path is no regular file, the file is no ONNX model or a damaged one, or
            its external data is missing or stands outside its folder.
    """
    if isinstance(source, ir.Model):
        name = source.meta.get("source", "the model in memory")
        check_nodes(source, name)
        check_order(source, name)
        copy = source.clone()
        copy.meta.update(source.meta)
        _replace_tensors(copy, lambda tensor: _readable(tensor, name))
        return copy
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source, "the model in memory", None, b"")
    try:
        path = Path(source)
    except TypeError:
        raise GraphScaleError(
            f"{type(source).__name__} is no model; give the path of an ONNX model, an "
            "onnx.ModelProto or an onnx_ir.Model"
        ) from None
    data = map_file(path, f"{path}:", "give the path of an ONNX model")
    if bytes(data[: len(_ZIP)]) == _ZIP:
        raise GraphScaleError(
            f"{path}: is a zip archive, as torch.save writes them, not an ONNX file; give the path "
            "of an ONNX model, or take what torch.load reads to graphscale.grow in Python"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(wire.detach(memoryview(data), INLINE))
    except wire.WireError as error:
        raise GraphScaleError(
            f"{path}: not an ONNX file, or a truncated one ({error}); export or copy it again"
        ) from None
    except DecodeError:
        raise GraphScaleError(f"{path}: not an ONNX file; give the path of an ONNX model") from None
    return _from_proto(proto, str(path), path, data)


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
    with detached(model, INLINE) as tensors:
        skeleton = to_proto(model).SerializeToString()
    sizes = [tensor.nbytes for tensor in tensors]
    total = sum(sizes)
    if len(skeleton) + total < _MAX_MESSAGE:
        with replacing(path) as (file,):
            for piece in wire.attach(skeleton, INLINE, sizes):
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
            file.write(to_proto(model).SerializeToString())


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` as an onnx message, for which its weights are computed.

    Raises:
        GraphScaleError: a weight cannot be computed; onnx-ir alone raises an error of its own.
    """
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, GraphScaleError):
                raise cause from None
            cause = cause.__cause__
        raise


def _from_proto(
    proto: onnx.ModelProto, name: str, path: Path | None, inline: mmap.mmap | bytes
) -> ir.Model:
    """The message as an onnx-ir model whose tensors are views of the files they stand in."""
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise GraphScaleError(f"{name}: holds no ONNX graph; give the path of an ONNX model")
    check_texts(proto, name)
    proto = with_dense_tensors(proto, name)
    try:
        with quiet_reading():
            model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir raises errors of many kinds
        reason = " ".join(str(error).split())[:300]
        raise GraphScaleError(
            f"{name}: not a valid ONNX model ({reason}); export it again"
        ) from error
    for graph in [model.graph, *model.functions.values()]:
        if "ai.onnx" in graph.opset_imports:  # the other name of the domain ""
            graph.opset_imports.setdefault("", graph.opset_imports.pop("ai.onnx"))
    check_versions(model, name)
    check_nodes(model, name)
    check_order(model, name)
    model.meta["source"] = name
    data = ExternalData(path, name, inline)
    _replace_tensors(model, lambda tensor: data.resolve(checked_tensor(tensor, name)))
    model.meta["files"] = data.paths()
    return model


def _replace_tensors(
    model: ir.Model, replaced: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> None:
    """Replace each weight, and each tensor that a node holds."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = replaced(value.const_value)
    for graph in [model.graph, *model.functions.values()]:
        for node, key, attribute in list(node_tensors(graph)):
            tensor = replaced(attribute.value)
            if tensor is not attribute.value:
                node.attributes[key] = ir.AttrTensor(key, tensor)


def _readable(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """Return a tensor of a model in memory; raise where its values cannot be read."""
    if not isinstance(tensor, ir.ExternalTensor | ir.serde.TensorProtoTensor):
        return tensor  # not read from a file: its shape is that of its values
    checked_tensor(tensor, name)
    if isinstance(tensor, ir.ExternalTensor):
        try:
            check_regular(Path(tensor.path))
            tensor.numpy()  # maps its file
        except Exception as error:  # onnx-ir raises errors of many kinds
            reason = " ".join(str(error).split())[:200]
            raise GraphScaleError(
                f"{name}: the external data of tensor {tensor.name!r} cannot be read ({reason}); "
                "put its file beside the model, or give the model's path"
            ) from None
    return tensor


def _write(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Write a tensor's bytes without a second copy of them."""
    if isinstance(tensor, ir.LazyTensor):
        tensor = tensor.raw()
    if isinstance(tensor, ir.Tensor) and isinstance(tensor.raw, np.ndarray):
        array = np.ascontiguousarray(tensor.raw)
        file.write(memoryview(array.reshape(-1).view(np.uint8)))
    else:
        file.write(tensor.tobytes())
