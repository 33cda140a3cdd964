"""What errors and plans call a node."""

from __future__ import annotations

import onnx_ir as ir


def node_name(node: ir.Node) -> str:
    """The node's name, or its first output's where it has none."""
    return node.name or node.outputs[0].name
