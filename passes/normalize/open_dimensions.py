"""Read the sizes that exporters write for 'any size' as symbolic, and refuse sizes of 0.

Some exporters write -1 for a batch that is open. ONNX has no such size: an open one is left out or
has a name. An input with a size of 0 would have nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.rewrite_result import RewriteResult


class OpenDimensions(ir.passes.InPlacePass):
    """Make sizes below 0 symbolic; the result names the tensors.

    Raises:
        GraphScaleError: an input has a size of 0; names it.
    """

    def call(self, model: ir.Model) -> RewriteResult:
        """Change declared shapes in place."""
        for value in graph_inputs(model):
            if value.shape is not None and 0 in value.shape:
                place = list(value.shape).index(0)
                raise GraphScaleError(
                    f"{model.meta.get('source', 'the model')}: input {value.name!r} has a size of "
                    f"0 at place {place} of its shape {list(value.shape)}; export the model with a "
                    "size of at least 1, or with a symbolic one"
                )
        changed = []
        for value in _values(model):
            shape = value.shape
            if shape is not None and any(isinstance(size, int) and size < 0 for size in shape):
                value.shape = ir.Shape(
                    None if isinstance(size, int) and size < 0 else size for size in shape
                )
                changed.append(value.name)
        return RewriteResult.of(model, changed)


def _values(model: ir.Model) -> Iterable[ir.Value]:
    """The tensors of the main graph, and those of the graphs inside its nodes."""
    yield from graph_inputs(model)
    for node in model.graph.all_nodes():
        yield from node.outputs
