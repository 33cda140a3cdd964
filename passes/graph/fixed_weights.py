"""Mark weights that nothing trains, such as the kernels of a blur.

torch knows them as buffers. In a graph they look like any other initializer, so the mark tells
them apart: rescaling leaves a fixed kernel as it is. The mark is not written to files.
"""

from __future__ import annotations

import onnx_ir as ir

_FIXED = "graphscale.fixed"


def mark_fixed(value: ir.Value) -> None:
    """Mark the initializer `value` as fixed."""
    value.meta[_FIXED] = True


def is_fixed(value: ir.Value) -> bool:
    """Whether the value was marked."""
    return bool(value.meta.get(_FIXED))


def computed_from_fixed(value: ir.Value) -> bool:
    """Whether a value is computed from initializers of which all floating-point ones are fixed."""
    seen: set[ir.Value] = set()
    pending, found = [value], False
    while pending:
        each = pending.pop()
        if each is None or each in seen:
            continue
        seen.add(each)
        if each.is_initializer():
            floating = each.dtype is not None and each.dtype.is_floating_point()
            if floating and not is_fixed(each):
                return False
            found = found or is_fixed(each)
        elif each.producer() is None:
            return False
        else:
            pending += each.producer().inputs
    return found
