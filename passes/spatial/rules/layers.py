"""graphscale's own layers that change channels, or have a weight of their own per position."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import fixed, moves
from graphscale.passes.spatial.registry import Rule, register


@register("FeatureLPPooling", "Maxout", domain="graphscale")
class _FeaturePooling(Rule):
    """Each window of channels becomes one channel; heights and widths stay."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        if moves(dims[1]):
            raise unfollowed(node, "pools flattened maps as if they were channels")
        for output in node.outputs:
            if output.name:
                analyzer.dims[output] = (dims[0], fixed(analyzer.shape(output)[1]), *dims[2:])


@register("LocallyConnected", domain="graphscale")
class _LocallyConnected(Rule):
    """Its weight has the image's positions among its dimensions."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        if any(moves(dim) for dim in analyzer.of(node.inputs[0])):
            raise unfollowed(node, "has another kernel at every position of its feature maps")
        for output in node.outputs:
            analyzer.dims[output] = tuple(fixed(size) for size in analyzer.shape(output))
