"""Refuse models whose weights hold NaN, as a training that diverged leaves them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.grow.match_weights import tensors_by_name

_BLOCK = 1 << 22  # numbers looked at together


def check_numbers(model: ir.Model) -> None:
    """Raise GraphScaleError for the first weight of `model` that holds NaN."""
    source = model.meta.get("source", "the model")
    for name, tensor in tensors_by_name(model).items():
        if not tensor.dtype.is_floating_point():
            continue
        array = tensor.numpy()
        if 0 in array.strides:  # a fill: one number in memory for the whole tensor
            array = array.reshape(-1)[:1]
        flat = array.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            with np.errstate(invalid="ignore"):  # of a signalling NaN in 8 or 16 bits
                found = np.isnan(flat[start : start + _BLOCK]).any()
            if found:
                raise GraphScaleError(
                    f"{source}: weight {name!r} holds NaN; go back to a checkpoint from before the "
                    "training diverged"
                )
