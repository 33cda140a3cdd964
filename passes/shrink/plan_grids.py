"""Record where every feature map's pixels stand in the picture, in both networks."""

from __future__ import annotations

from dataclasses import asdict

from graphscale.core.plan import GridPlan
from graphscale.passes.shrink.solve_geometry import Geometry, phase
from graphscale.passes.spatial.dimensions import single_extent
from graphscale.passes.spatial.traced import Traced


def plan_grids(traced: Traced, geometry: Geometry) -> dict[str, list[GridPlan]]:
    """The grids of what links produce and of what joins maps; all other tensors share theirs."""
    frames = {}
    for extent, size in geometry.inputs.items():
        frames.setdefault(extent.axis, (extent.target, size))
    plans: dict[str, list[GridPlan]] = {}
    for node in traced.model.graph:
        value = node.outputs[0]
        joins = sum(bool(geometry.grids.get(each)) for each in node.inputs) > 1
        if node not in traced.links and not joins:
            continue
        for position, (target, pretrain) in sorted(geometry.grids.get(value, {}).items()):
            extent = single_extent(traced.of(value)[position])
            if extent is None or extent.axis not in frames:
                continue
            plans.setdefault(value.name, []).append(
                GridPlan(
                    position,
                    asdict(target),
                    asdict(pretrain),
                    round(phase((target, pretrain), frames[extent.axis]), 4),
                )
            )
    return plans
