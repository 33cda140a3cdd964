"""RoiAlign and MaxRoiPool: fixed windows read from regions of a map.

The regions are given in pixels of the network's input, and `spatial_scale` turns these into pixels
of the map: it is the map's pixels per input pixel. Where these differ between the networks (behind
a Resize of another ratio, say), the attribute is multiplied by their ratio.
"""

from __future__ import annotations

from math import isclose, prod

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import fixed
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter

_TOLERANCE = 0.05  # between the ratios of height and width, for which there is one attribute


@register("MaxRoiPool", "RoiAlign")
class _RegionsOfInterest(Rule):
    """The map's sizes are free; the output's are attributes."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        analyzer.read_map(dims)
        shape = analyzer.shape(node.outputs[0])
        regions = analyzer.of(node.inputs[1])[0]
        analyzer.dims[node.outputs[0]] = (regions, dims[1], *map(fixed, shape[2:]))

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        grids = rewriter.geometry.grids.get(node.inputs[0], {})
        ratios = [target.pitch / pretrain.pitch for target, pretrain in grids.values()]
        if all(isclose(ratio, 1.0) for ratio in ratios):
            return
        if max(ratios) / min(ratios) > 1 + _TOLERANCE:
            raise GraphScaleError(
                f"node {node_name(node)!r} ({node.op_type}) has one spatial_scale for height and "
                "width, which change by different ratios; give an --input-size of the target's "
                "aspect ratio"
            )
        scale = node.attributes.get_float("spatial_scale", 1.0)
        scale *= prod(ratios) ** (1 / len(ratios))
        node.attributes["spatial_scale"] = ir.AttrFloat32("spatial_scale", scale)
