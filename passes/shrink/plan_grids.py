"""Record where every feature map's pixels stand in the image, in both networks.

In go the analysis and the solved geometry; out come the plan's `GridPlan`s, by tensor name.
"""

from __future__ import annotations

from graphscale.core.plan import GridPlan
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import single_size
from graphscale.passes.spatial.geometry import Geometry, frames, phase


def plan_grids(analysis: SpatialAnalysis, geometry: Geometry) -> dict[str, list[GridPlan]]:
    """The grids of the outputs of mappings and joins.

    The output of any other operator has the grids of its input, which are not repeated.
    """
    images = frames(geometry.inputs)
    plans: dict[str, list[GridPlan]] = {}
    for node in analysis.model.graph:
        if not node.outputs:
            continue
        value = node.outputs[0]
        joins = sum(bool(geometry.grids.get(each)) for each in node.inputs) > 1
        if node not in analysis.mappings and not joins:
            continue
        for position, (target, pretrain) in sorted(geometry.grids.get(value, {}).items()):
            size = single_size(analysis.of(value)[position])
            if size is None or size.axis not in images:
                continue
            off = round(phase((target, pretrain), images[size.axis]), 4)
            plans.setdefault(value.name, []).append(GridPlan(position, target, pretrain, off))
    return plans
