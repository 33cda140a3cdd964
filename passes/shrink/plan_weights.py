"""List every weight that changes shape, with the factors of its dimensions in both networks.

In go the analysis, the chosen kernels and the solved geometry; out come the `WeightPlan`s.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.core.plan import Factor, JoinedFactor, WeightPlan, factor_sizes
from graphscale.core.shifted_windows import KIND as SHIFTED_WINDOWS
from graphscale.passes.graph.weight_source import dims_at_source, weight_source
from graphscale.passes.shrink.choose_kernels import ChosenKernels
from graphscale.passes.shrink.table_kind import table_kind
from graphscale.passes.shrink.window_masks import window_mask_dims
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import Dim, Sizes
from graphscale.passes.spatial.geometry import Geometry


def plan_weights(
    analysis: SpatialAnalysis, kernels: ChosenKernels, geometry: Geometry
) -> dict[ir.Value, WeightPlan]:
    """The weights to resize, by the value that holds them.

    Raises:
        GraphScaleError: one weight is shared by layers that need different sizes of it.
    """
    plans: dict[ir.Value, WeightPlan] = {}
    readers: dict[ir.Value, ir.Node] = {}

    def add(value: ir.Value, node: ir.Node, kind: str, factors: list[list[Factor]]) -> None:
        pairs = [factor_sizes(factor) for dim in factors for factor in dim]
        if all(target == pretrain for target, pretrain in pairs):
            return
        plan = WeightPlan(value.name, kind, factors)
        if plans.setdefault(value, plan).factors != factors:
            raise GraphScaleError(
                f"weight {value.name!r} is shared by {node_name(readers[value])!r} and "
                f"{node_name(node)!r}, which need different sizes of it; "
                f"give --keep {value.name!r}"
            )
        readers.setdefault(value, node)

    for node, target in kernels.target.items():
        value = weight_source(node.inputs[1])
        if value is None:
            continue
        entries: list = [[(size, size)] for size in analysis.shape(node.inputs[1])[:2]]
        entries += [[pair] for pair in zip(target, geometry.kernels[node], strict=True)]
        factors = dims_at_source(node.inputs[1], entries, analysis.inferred.constants)
        kind = "interface" if node in analysis.covering else "kernel"
        add(value, node, kind, [list(dim) or [(1, 1)] for dim in factors])
    for weight in analysis.weights:
        mask = None if weight.summed else window_mask_dims(weight.value, weight.dims)
        factors = [_factors(dim, geometry.sizes) for dim in mask or weight.dims]
        if mask is not None:
            kind = SHIFTED_WINDOWS
        else:
            kind = "interface" if weight.summed else table_kind(weight.value, factors)
        add(weight.value, weight.node, kind, factors)
    for lookup in analysis.lookups:
        for value, kind, dims in (
            (lookup.index, lookup.kind, lookup.dims),
            (lookup.table, lookup.table_kind, lookup.table_dims),
        ):
            add(value, lookup.node, kind, [_factors(dim, geometry.sizes) for dim in dims])
    return plans


def _factors(dim: Dim, sizes: Sizes) -> list[Factor]:
    """(target, pre-train) sizes of a dimension's factors; joined maps are one `JoinedFactor`."""
    factors: list[Factor] = []
    for factor in dim:
        if factor.parts and factor.pooled == 1:
            factors.append(JoinedFactor([_factors(part, sizes) for part in factor.parts]))
        else:
            factors.append((factor.size, factor.pretrain(sizes)))
    return factors or [(1, 1)]
