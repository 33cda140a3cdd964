"""The result of analyzing the heights and widths of a graph.

`analyze` makes a `SpatialAnalysis` with the rules of the operators; the passes that shrink a
network read it and change nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm

import onnx_ir as ir

from graphscale.passes.graph.infer_shapes import InferredShapes
from graphscale.passes.spatial.dimensions import Dims, SpatialSize, fixed
from graphscale.passes.spatial.lookups import Lookup
from graphscale.passes.spatial.mapping import Parameters, SpatialMapping


@dataclass(frozen=True)
class SpatialWeight:
    """A weight whose dimensions hold spatial sizes: a fully-connected interface, or a table.

    Attributes:
        value: The initializer, or the output of the Constant node, that holds the weight.
        dims: Its dimensions.
        summed: Whether the positions are summed over (an interface: amplitude corrected when
            resized) or stand for themselves (a table: values are interpolated as they are).
        node: The node that reads it.
    """

    value: ir.Value
    dims: Dims
    summed: bool
    node: ir.Node


@dataclass(frozen=True)
class GraphFacts:
    """A graph with its shapes in the target network, in which rules and passes look values up."""

    model: ir.Model
    inferred: InferredShapes

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Shape in the target network."""
        return self.inferred.shapes[value]

    def constant(self, node: ir.Node, index: int, attribute: str) -> list | None:
        """Input `index` of a node, or the attribute that held it in older opsets, as a list.

        None where it is absent, or depends on the data.
        """
        if attribute in node.attributes:
            return list(node.attributes[attribute].value)
        if index < len(node.inputs) and node.inputs[index] is not None:
            value = self.inferred.constants.get(node.inputs[index])
            return None if value is None else value.reshape(-1).tolist()
        return None


@dataclass(frozen=True)
class SpatialAnalysis(GraphFacts):
    """How spatial sizes flow through a graph.

    Attributes:
        spatial: Positions of the heights and widths of each graph input.
        dims: Each tensor's dimensions.
        mappings: The mappings of each node, in topological order.
        producers, consumers: The mappings that end and start at a size.
        anchored: Sizes that are fixed by something besides mappings: they belong to an output of
            the graph or to an interface, or are one pixel.
        interfaces: Sizes that a weight sums over.
        unfollowed: Sizes that an operator reads in a way that cannot be followed.
        unmoved: The parameters of operators, by dimension, where no input size moves the dimension.
        covering: Operators whose window covers the whole map on a dimension, and that map's size.
        weights: Weights that hold spatial sizes.
        lookups: Tables of relative positions, and their indices.
    """

    spatial: Mapping[ir.Value, range]
    dims: Mapping[ir.Value, Dims]
    mappings: Mapping[ir.Node, tuple[SpatialMapping, ...]]
    producers: Mapping[SpatialSize, tuple[SpatialMapping, ...]]
    consumers: Mapping[SpatialSize, tuple[SpatialMapping, ...]]
    anchored: frozenset[SpatialSize]
    interfaces: frozenset[SpatialSize]
    unfollowed: frozenset[SpatialSize]
    unmoved: Mapping[ir.Node, Mapping[int, Parameters]]
    covering: Mapping[ir.Node, Mapping[int, SpatialSize]]
    weights: tuple[SpatialWeight, ...]
    lookups: tuple[Lookup, ...]

    def of(self, value: ir.Value) -> Dims:
        """Dimensions of a value; those of constants and weights are fixed."""
        dims = self.dims.get(value)
        return tuple(fixed(size) for size in self.shape(value)) if dims is None else dims

    def divisor(self, size: SpatialSize) -> int:
        """The number that a size must be a multiple of, for readers that cut it into blocks."""
        readers = self.consumers.get(size, ())
        return lcm(*(mapping.target.divisor(size.target) for mapping in readers))
