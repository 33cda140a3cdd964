"""Write the solved geometry into the graph: attributes, shape constants and declared shapes.

In go the analyzed model and its geometry; the model becomes the pre-train network. Each operator's
rule writes its own nodes. `check_shapes` then infers all shapes again and compares.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.passes.graph.infer_shapes import infer_shapes
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import moves, pretrain_size
from graphscale.passes.spatial.geometry import Geometry
from graphscale.passes.spatial.registry import find_rule
from graphscale.passes.spatial.rewriter import Rewriter


class ShrinkGraph(ir.passes.InPlacePass):
    """Turn the analyzed graph into the pre-train graph; the weights are left to the caller.

    Args:
        analysis: The analysis of the model that the pass is applied to.
        geometry: The geometry that was solved for it.
    """

    def __init__(self, analysis: SpatialAnalysis, geometry: Geometry) -> None:
        super().__init__()
        self._analysis = analysis
        self._geometry = geometry

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrite in place; the result names the constants that hold shapes and have changed."""
        analysis, geometry = self._analysis, self._geometry
        rewriter = Rewriter(analysis, geometry)
        for node in list(model.graph):
            rule = find_rule(node)
            if rule is not None and any(output in analysis.dims for output in node.outputs):
                rule.write(node, rewriter)
        for value, dims in analysis.dims.items():
            if value.shape is None or not any(moves(dim) for dim in dims):
                continue
            if len(value.shape) != len(dims):  # what the file said of it was never true
                value.shape = None
            else:
                value.shape = ir.Shape(
                    pretrain_size(dim, geometry.sizes) if moves(dim) else old
                    for dim, old in zip(dims, value.shape, strict=True)
                )
        return RewriteResult.of(model, rewriter.constants.changed)


def check_shapes(
    analysis: SpatialAnalysis, geometry: Geometry, input_shapes: Mapping[str, list[int]]
) -> None:
    """Infer the shapes of the finished pre-train network; every tensor must have the planned one.

    Raises:
        GraphScaleError: a constant was overlooked that holds a shape; names the tensor.
    """
    try:
        inferred = infer_shapes(analysis.model, input_shapes)
    except GraphScaleError as error:
        raise GraphScaleError(
            f"the sizes of the pre-train network do not fit ({error.args[0].partition(';')[0]}); a "
            "constant that holds a shape could not be followed, export the model with constant "
            "folding"
        ) from error
    for value, dims in analysis.dims.items():
        if weight_source(value) is not None or value in analysis.inferred.constants:
            # Of constants the readers' outputs are compared: a wrong one shows there.
            continue
        planned = tuple(geometry.shape(dims))
        found = inferred.shapes.get(value, planned)
        if found != planned:
            node = value.producer()
            raise GraphScaleError(
                f"node {node_name(node) if node else value.name!r}: its output would be "
                f"{list(found)} instead of {list(planned)}; a constant that holds a shape could "
                "not be followed, export the model with constant folding"
            )
