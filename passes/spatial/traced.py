"""What tracing finds out about a graph's extents, and how its findings are recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.infer_shapes import InferredShapes
from graphscale.passes.graph.weight_source import dims_at_source, weight_source
from graphscale.passes.spatial.dimensions import (
    Dims,
    Extent,
    SpatialWeight,
    fixed,
    moves,
    target_size,
)
from graphscale.passes.spatial.links import Link, Numbers

CONVOLUTIONS = ("Conv", "FFTConv", "FusedConv", "ConvTranspose")


@dataclass
class Traced:
    """What the graph says about its extents.

    Attributes:
        dims: Each tensor's dimensions.
        sequences: The dimensions of the tensors in each sequence.
        links: Every link in topological order, per node.
        still: The numbers of window operators, by position, on axes that no link moves.
        covering: Nodes (convolution, pooling) whose window covers the whole map, with the extents.
        weights: Weights that hold extents.
    """

    model: ir.Model
    measured: InferredShapes
    dims: dict[ir.Value, Dims] = field(default_factory=dict)
    sequences: dict[ir.Value, list[Dims]] = field(default_factory=dict)
    links: dict[ir.Node, list[Link]] = field(default_factory=dict)
    still: dict[ir.Node, dict[int, Numbers]] = field(default_factory=dict)
    covering: dict[ir.Node, dict[int, Extent]] = field(default_factory=dict)
    weights: list[SpatialWeight] = field(default_factory=list)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Shape in the target network."""
        return self.measured.shapes[value]

    def of(self, value: ir.Value) -> Dims:
        """Dimensions of a value; those of constants and weights are fixed."""
        if value not in self.dims:
            self.dims[value] = tuple(fixed(size) for size in self.shape(value))
        return self.dims[value]

    def constant(self, node: ir.Node, index: int, attribute: str) -> list | None:
        """Input `index` of a node, or the attribute that held it before, as a list."""
        if attribute in node.attributes:
            return list(node.attributes[attribute].value)
        if index < len(node.inputs) and node.inputs[index] is not None:
            value = self.measured.constants.get(node.inputs[index])
            return None if value is None else value.reshape(-1).tolist()
        return None


def unfollowed(node: ir.Node, why: str) -> GraphScaleError:
    """The error for an operator whose use of heights and widths cannot be rescaled."""
    name = node.name or node.outputs[0].name
    return GraphScaleError(
        f"node {name!r} ({node.op_type}) {why}, which graphscale cannot rescale; "
        "cut the model before it or replace the node"
    )


def match_table(node: ir.Node, traced: Traced, value: ir.Value, aligned: Dims) -> None:
    """Record a weight that is added to, or scales, single positions of a map."""
    shape = traced.shape(value)
    aligned = aligned[len(aligned) - len(shape) :] if shape else ()
    if len(aligned) != len(shape) or weight_source(value) is None:
        return
    dims = tuple(
        dim if size > 1 and target_size(dim) == size else fixed(size)
        for dim, size in zip(aligned, shape, strict=True)
    )
    if any(moves(dim) for dim in dims):
        add_weight(node, traced, value, dims, summed=False)


def add_weight(node: ir.Node, traced: Traced, value: ir.Value, dims: Dims, summed: bool) -> None:
    """Record a weight whose dimensions, as `value` has them, hold extents."""
    held = weight_source(value)
    if held is None:
        return
    dims = dims_at_source(value, dims, traced.measured.constants)
    traced.weights.append(SpatialWeight(held, dims, summed, node))
    for dim in dims:
        for atom in dim:
            if atom.extent is not None:
                atom.extent.root.anchored = True
                atom.extent.root.interface |= summed
