"""A model without its weights, as text: how the plan carries the target network."""

from __future__ import annotations

import base64
import zlib

import onnx
import onnx_ir as ir

from graphscale.core.detached_tensors import detached
from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import without_given_names
from graphscale.core.quiet import quiet_reading
from graphscale.core.well_formed import check_nodes, check_order, check_texts

_STRIPPED = "#stripped"  # external-data location of the weights left out
# A compressed graph is about a twentieth of its size. Text that unpacks to more than the larger of
# these limits is damaged or hostile, and refused.
_MAX_BYTES = 1 << 26
_MAX_GROWTH = 50  # times the compressed bytes


def strip(model: ir.Model) -> str:
    """The graph of `model` as base64 text of its compressed protobuf; tensors below 1 KiB stay."""
    with detached(model, _STRIPPED), without_given_names(model):
        proto = ir.to_proto(model)
    return base64.b64encode(zlib.compress(proto.SerializeToString(), 9)).decode("ascii")


def restore(text: str) -> ir.Model:
    """The model that `strip` wrote; `is_stripped` tells which of its tensors must be filled.

    Raises:
        GraphScaleError: the text is damaged, or larger than any network's.
    """
    try:
        data = base64.b64decode(text, validate=True)
        limit = max(_MAX_BYTES, _MAX_GROWTH * len(data))
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(data, limit)
        if unpacker.unconsumed_tail:
            raise ValueError(f"it is larger than {limit >> 20} MiB")
        proto = onnx.ModelProto.FromString(content)
        if not (unpacker.eof and (proto.graph.node or proto.graph.output)):
            raise ValueError("it holds no graph")
        check_texts(proto, "it")
        with quiet_reading():
            model = ir.from_proto(proto)
        check_nodes(model, "it")
        check_order(model, "it")
    except Exception as error:  # base64, zlib, protobuf and onnx-ir raise errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise GraphScaleError(
            f"the plan's target network is damaged ({reason}); grow with --target model.onnx"
        ) from None
    return model


def is_stripped(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor of a restored model has lost its numbers."""
    return isinstance(tensor, ir.ExternalTensor) and str(tensor.location) == _STRIPPED
