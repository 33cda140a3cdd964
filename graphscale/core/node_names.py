"""Name the nodes that have no name, so that messages can name them, and remove the names again.

ONNX nodes need no names. While graphscale works on a model, a node without one has the name of its
first output, which is unique and which viewers show. Before a model is written the names are
removed, so that its nodes are as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

_GIVEN = "graphscale.given_name"  # key in a node's `meta`, which is not written to files


def node_name(node: ir.Node) -> str:
    """The name of `node`, or of its first output where it has none."""
    return node.name or next((value.name for value in node.outputs if value.name), "")


def name_nodes(model: ir.Model) -> list[str]:
    """Name the nodes of `model` that have no name, those in branches and functions too.

    Returns the names that were given.
    """
    given = []
    for node in _nodes(model):
        label = node_name(node)
        if not node.name and label:
            node.name = label
            node.meta[_GIVEN] = label
            given.append(label)
    return given


def forget_given_names(model: ir.Model) -> None:
    """Remove the names that `name_nodes` gave."""
    for node in _nodes(model):
        if node.meta.pop(_GIVEN, None) == node.name and node.name:
            node.name = ""


@contextlib.contextmanager
def without_given_names(model: ir.Model) -> Iterator[None]:
    """Remove the names that `name_nodes` gave, for the time of the block."""
    named = [node for node in _nodes(model) if node.meta.get(_GIVEN, "") == node.name != ""]
    names = [node.name for node in named]
    for node in named:
        node.name = ""
    try:
        yield
    finally:
        for node, name in zip(named, names, strict=True):
            node.name = name


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    for graph in (model.graph, *model.functions.values()):
        yield from graph.all_nodes()
