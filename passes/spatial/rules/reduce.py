"""Operators that reduce dimensions to one pixel: Reduce..., ArgMax, TopK and global pooling."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import fixed, target_size
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter


@register(
    *("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
class Reduction(Rule):
    """Whether a dimension is kept shows in the output's shape, unless it is left out."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs[:1]
        dims = analyzer.of(node.inputs[0])
        shape = analyzer.shape(output)
        if len(shape) == len(dims):
            result = [
                dim if target_size(dim) == size else fixed(size) for dim, size in zip(dims, shape)
            ]
        else:
            axes = analyzer.constant(node, 1, "axes") or [node.attributes.get_int("axis", 0)]
            axes = [axis % len(dims) for axis in axes]
            kept = [dim for position, dim in enumerate(dims) if position not in axes]
            result = kept if len(kept) == len(shape) else [fixed(size) for size in shape]
        for each in node.outputs:
            analyzer.dims[each] = tuple(result)


@register("TopK")
class _TopK(Reduction):
    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        axis = node.attributes.get_int("axis", -1)
        best = rewriter.analysis.shape(node.outputs[0])[axis]
        positions = rewriter.shape(node.inputs[0])[axis]
        if best > positions:
            raise GraphScaleError(
                f"node {node_name(node)!r} (TopK) picks the best {best} of a map's positions, of "
                f"which the pre-train network has only {positions}; give a larger --input-size, or "
                "cut the model before it"
            )


@register("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
class _GlobalPool(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        analyzer.read_map(dims)
        analyzer.dims[node.outputs[0]] = (*dims[:2], *(() for _ in dims[2:]))
