"""List every weight that changes shape, with the factors of its dimensions in both networks."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import WeightPlan
from graphscale.passes.graph.weight_source import dims_at_source, weight_source
from graphscale.passes.shrink.choose_kernels import Kernels, node_name
from graphscale.passes.spatial.dimensions import Dim, Extent
from graphscale.passes.spatial.traced import Traced

Factors = list[list[tuple[int, int]]]


def plan_weights(
    traced: Traced, kernels: Kernels, solved: Mapping[Extent, int]
) -> dict[ir.Value, WeightPlan]:
    """The weights to resize, by the value that holds them.

    Raises:
        GraphScaleError: one weight is shared by layers that need different sizes of it.
    """
    plans: dict[ir.Value, WeightPlan] = {}
    readers: dict[ir.Value, ir.Node] = {}

    def add(value: ir.Value, node: ir.Node, kind: str, factors: Factors) -> None:
        if all(target == pretrain for dim in factors for target, pretrain in dim):
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
        pretrain = list(kernels.pretrain[node])
        covered = traced.covering.get(node, {})
        for position, extent in covered.items():
            pretrain[position] = solved[extent.root]
        kernels.pretrain[node] = tuple(pretrain)
        shape = traced.shape(node.inputs[1])
        entries: list = [[(size, size)] for size in shape[:2]]
        entries += [[pair] for pair in zip(target, pretrain, strict=True)]
        factors = dims_at_source(node.inputs[1], entries, traced.measured.constants)
        kind = "interface" if covered else "kernel"
        add(value, node, kind, [list(dim) or [(1, 1)] for dim in factors])
    for weight in traced.weights:
        kind = "interface" if weight.summed else "table"
        factors = [_factors(dim, solved) for dim in weight.dims]
        add(weight.value, weight.node, kind, factors)
    return plans


def _factors(dim: Dim, solved: Mapping[Extent, int]) -> list[tuple[int, int]]:
    if any(atom.parts for atom in dim):
        raise GraphScaleError(
            "a fully-connected layer reads several maps joined by Concat, "
            "which graphscale cannot rescale; give the layers that feed it to --keep"
        )
    return [(atom.size, atom.pretrain(solved)) for atom in dim] or [(1, 1)]
