"""Make the sparse tensors of a model dense, in the message that was read from its file.

ONNX lets a file hold a weight as its non-zero numbers and their places. onnx-ir, with which the
rest of graphscale works, drops such weights. They are therefore made dense before it reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from graphscale.core.errors import GraphScaleError

# A sparse tensor of a few bytes can stand for a dense one of any size. Real weights grow a
# hundredfold when they are made dense; a tensor that would exceed both limits is refused.
_MAX_BYTES = 1 << 26
_MAX_GROWTH = 4096


def with_dense_tensors(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """`model` itself, or, where it holds sparse tensors, a copy in which they are dense.

    A sparse initializer becomes an initializer of the same name. A Constant node with a
    `sparse_value` gets a `value`.

    Raises:
        GraphScaleError: a sparse tensor is damaged or grows out of proportion; names it.
    """
    if not any(_is_sparse(part) for part in _parts(model)):
        return model
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    for part in _parts(dense):
        if isinstance(part, onnx.NodeProto):
            for attribute in part.attribute if _is_sparse(part) else ():
                _make_value(attribute, source)
        else:
            part.initializer.extend(_dense(each, source) for each in part.sparse_initializer)
            part.ClearField("sparse_initializer")
    return dense


def _parts(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.NodeProto]:
    """All graphs and nodes, without recursion into deep nests."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        if isinstance(graph, onnx.GraphProto):
            yield graph
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    pending.extend(attribute.graphs)


def _is_sparse(part: onnx.GraphProto | onnx.NodeProto) -> bool:
    if isinstance(part, onnx.GraphProto):
        return len(part.sparse_initializer) > 0
    return part.op_type == "Constant" and any(
        each.type == onnx.AttributeProto.SPARSE_TENSOR for each in part.attribute
    )


def _make_value(attribute: onnx.AttributeProto, source: str) -> None:
    tensor = _dense(attribute.sparse_tensor, source)
    attribute.ClearField("sparse_tensor")
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)


def _dense(sparse: onnx.SparseTensorProto, source: str) -> onnx.TensorProto:
    """The tensor with zeros between the numbers of `sparse`."""
    name = sparse.values.name
    shape = list(sparse.dims)
    try:
        values = numpy_helper.to_array(sparse.values).reshape(-1)
        places = numpy_helper.to_array(sparse.indices).astype(np.int64)
    except Exception as error:  # onnx's readers raise errors of many kinds
        raise _damaged(source, name, " ".join(str(error).split())[:200]) from error
    if any(size < 0 for size in shape):
        raise _damaged(source, name, f"its shape is {shape}")
    size = prod(shape) * values.itemsize
    if size > max(_MAX_BYTES, _MAX_GROWTH * (values.nbytes + places.nbytes)):
        raise GraphScaleError(
            f"{source}: the sparse tensor {name!r} of {len(values)} numbers would take "
            f"{size:.3g} bytes as a dense one; store it as a dense one"
        )
    # Places are either coordinates, a row for each number, or positions in the flattened tensor.
    flat = places.ndim == 1
    bounds = np.asarray([prod(shape)] if flat else shape)
    rows = places.reshape(-1, 1) if flat else places
    if rows.shape != (len(values), len(bounds)):
        raise _damaged(source, name, "its places do not fit its numbers")
    if not np.all((rows >= 0) & (rows < bounds)):
        raise _damaged(source, name, "a number stands outside its shape")
    array = np.zeros(bounds, values.dtype)
    array[tuple(rows.T)] = values
    return numpy_helper.from_array(array.reshape(shape), name)


def _damaged(source: str, name: str, reason: str) -> GraphScaleError:
    return GraphScaleError(
        f"{source}: the sparse tensor {name!r} is damaged ({reason}); export the model again"
    )
