"""A model without its weights, as text: how the plan carries the target network."""

from __future__ import annotations

import base64
import binascii
import zlib

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import detached
from graphscale.core.node_names import without_given_names

_STRIPPED = "#stripped"  # external-data location of the weights left out


def strip(model: ir.Model) -> str:
    """The graph of `model` as base64 text of its compressed protobuf; tensors below 1 KiB stay."""
    with detached(model, _STRIPPED), without_given_names(model):
        proto = ir.to_proto(model)
    return base64.b64encode(zlib.compress(proto.SerializeToString(), 9)).decode("ascii")


def restore(text: str) -> ir.Model:
    """The model that `strip` wrote; `is_stripped` tells which of its tensors must be filled.

    Raises:
        GraphScaleError: the text is damaged.
    """
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True))
        return ir.from_proto(onnx.ModelProto.FromString(data))
    except (binascii.Error, zlib.error, DecodeError) as error:
        raise GraphScaleError(
            f"the plan's target network is damaged ({error}); grow with --target model.onnx"
        ) from None


def is_stripped(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor of a restored model has lost its numbers."""
    return isinstance(tensor, ir.ExternalTensor) and str(tensor.location) == _STRIPPED
