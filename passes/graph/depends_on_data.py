"""Whether a value is computed from the numbers that a network is fed."""

from __future__ import annotations

import onnx_ir as ir


def depends_on_data(value: ir.Value) -> bool:
    """Whether a value is computed from an input's numbers, not from shapes and constants alone."""
    seen: set[ir.Value] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        if each is None or each in seen or each.is_initializer():
            continue
        seen.add(each)
        node = each.producer()
        if node is None:
            return True
        if node.op_type not in ("Shape", "Size"):
            pending += node.inputs
    return False
