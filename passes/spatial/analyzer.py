"""The analysis while it is being made, which the rules of operators read and add to.

A rule gives the dimensions of its node's outputs (`dims`), made from those of the inputs (`of`). It
records a mapping for each dimension that it resizes (`resize`, `spread`) and the weights that stand
on positions of a map (`add_weight`, `add_table`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.weight_source import dims_at_source, weight_source
from graphscale.passes.spatial.analysis import GraphFacts, SpatialAnalysis, SpatialWeight
from graphscale.passes.spatial.dimensions import (
    Dim,
    DimensionFactor,
    Dims,
    SpatialSize,
    fixed,
    following,
    moves,
    offsets,
    single_size,
    sizes_in,
    target_size,
)
from graphscale.passes.spatial.lookups import Lookup, find_factors, find_lookup
from graphscale.passes.spatial.mapping import Parameters, SpatialMapping

# What helps where heights and widths cannot be followed.
OWN_SIZE = (
    "; or leave images their size (--input-size 224:224 for images of 224), so that only kernels "
    "become smaller"
)
SMALLEST_WINDOW = 3  # pixels; smaller blocks become channels (space to depth), or merge pixels


@dataclass(frozen=True)
class Cut:
    """A height or width that a Reshape cuts in two numbers: windows, and the pixels of a window.

    Attributes:
        whole: The size that is cut.
        part: The number that follows the input: how many windows there are, or, where windows are
            scaled, the pixels of one.
        kept: The other number, which is the same in both networks.
        kept_first: Whether `kept` comes first in the tensor's shape. A window whose pixels come
            first takes them from all over the map, as in the grid attention of MaxViT.
    """

    whole: SpatialSize
    part: SpatialSize
    kept: int
    kept_first: bool


@dataclass(frozen=True)
class Analyzer(GraphFacts):
    """Collects what the rules find.

    Attributes:
        standing_still: Graph inputs, and outputs of operators that spread one pixel over a map,
            that turned out to be no images or maps: their sizes are fixed.
        channels: Where the channels of graph inputs are, if not at the second place: behind the
            frames of a video, say, or last.
        window: Pixels of a window, where the graph's Reshapes that cut a size have one in common.
        scale_windows: Whether the number of windows is kept, and their size follows the input.
        spread_numbers: Whether a number that an Expand spreads may become a map.
        dims: Each tensor's dimensions.
        sequences: The dimensions of the tensors in each sequence.
        cuts: The sizes that were cut into windows.
    """

    standing_still: frozenset[ir.Value] = frozenset()
    channels: Mapping[ir.Value, int] = field(default_factory=dict)
    window: int | None = None
    scale_windows: bool = False
    spread_numbers: bool = False
    dims: dict[ir.Value, Dims] = field(default_factory=dict)
    sequences: dict[ir.Value, list[Dims]] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    _mappings: dict[ir.Node, list[SpatialMapping]] = field(default_factory=dict)
    _unmoved: dict[ir.Node, dict[int, Parameters]] = field(default_factory=dict)
    _covering: dict[ir.Node, dict[int, SpatialSize]] = field(default_factory=dict)
    _weights: list[SpatialWeight] = field(default_factory=list)
    _lookups: list[Lookup] = field(default_factory=list)
    _anchored: list[SpatialSize] = field(default_factory=list)
    _interfaces: list[SpatialSize] = field(default_factory=list)
    _maps: list[SpatialSize] = field(default_factory=list)
    _channels: list[SpatialSize] = field(default_factory=list)
    _unfollowed: list[SpatialSize] = field(default_factory=list)
    _sources: dict[ir.Value, list[SpatialSize]] = field(default_factory=dict)
    _spatial: dict[ir.Value, Sequence[int]] = field(default_factory=dict)

    # --- what rules read --------------------------------------------------------------------------

    def of(self, value: ir.Value) -> Dims:
        """Dimensions of a value; those of constants and weights are fixed."""
        if value not in self.dims:
            self.dims[value] = tuple(fixed(size) for size in self.shape(value))
        return self.dims[value]

    # --- what rules record ------------------------------------------------------------------------

    def keep(self, node: ir.Node) -> None:
        """Give the outputs the first input's dimensions; fixed ones where the sizes differ."""
        source = self.of(node.inputs[0])
        for output in node.outputs:
            if not output.name or output not in self.inferred.shapes:
                continue
            shape = self.shape(output)
            if shape == self.shape(node.inputs[0]):
                self.dims[output] = source
            elif len(shape) == len(source):
                self.dims[output] = tuple(
                    dim if target_size(dim) == size else fixed(size)
                    for dim, size in zip(source, shape)
                )
            else:
                self.dims[output] = tuple(fixed(size) for size in shape)

    def resize(
        self, node: ir.Node, dimension: int, dim: Dim, size: int, parameters: Parameters
    ) -> Dim:
        """The dimension of `size` pixels that `parameters` make of `dim`; records the mapping."""
        source = single_size(dim)
        if source is None and moves(dim):
            if parameters.keeps_size:
                return dim
            raise unfollowed(node, "slides over flattened maps")
        if source is None:
            self._unmoved.setdefault(node, {})[dimension] = parameters
            return fixed(size)
        return self._map(node, dimension, source, SpatialSize(source.axis, size), parameters)

    def spread(
        self, node: ir.Node, dimension: int, axis: int, size: int, parameters: Parameters
    ) -> Dim:
        """A dimension of `size` pixels that the node makes from no map; records the mapping.

        Its size is known where the map meets another, by an element-wise operator say. A map that
        meets nothing that follows the input keeps its size.
        """
        (output,) = node.outputs
        if output in self.standing_still:
            return fixed(size)
        result = SpatialSize(axis, size)
        self._sources.setdefault(output, []).append(result)
        return self._map(node, dimension, None, result, parameters)

    def cut(
        self, node: ir.Node, dimension: int, whole: SpatialSize, first: int, parameters
    ) -> tuple[DimensionFactor, DimensionFactor]:
        """Cut a size into `first` pieces and the rest; records the mapping to one of the two.

        One of the two numbers is the size of a window: the one that all cuts of the graph have in
        common, else the second one. It is kept, unless windows are scaled; blocks of few pixels,
        which become channels, are kept always. `parameters` makes the mapping's of the number that
        is kept and of whether windows are scaled.
        """
        second = whole.target // first
        scaled = self.scale_windows and second >= SMALLEST_WINDOW
        kept_first = scaled or self.window == first != second
        kept, number = (first, second) if kept_first else (second, first)
        part = SpatialSize(whole.axis, number)
        self._map(node, dimension, whole, part, parameters(kept, scaled))
        self.cuts.append(Cut(whole, part, kept, kept_first))
        factors = DimensionFactor(number, part), DimensionFactor(kept)
        return factors[::-1] if kept_first else factors

    def common_window(self) -> int | None:
        """The number that all cuts have in common, the first cut's window if there are two."""
        pairs = [{each.kept, each.part.target} for each in self.cuts]
        common = set.intersection(*pairs) if pairs else set()
        return self.cuts[0].kept if len(common) == 2 else next(iter(common), None)

    def join(self, node: ir.Node, dimension: int, cut: Cut, parameters: Parameters) -> Dim:
        """The size that was cut, where its windows are put together again; records the mapping."""
        return self._map(node, dimension, cut.part.root, cut.whole.root, parameters)

    def _map(self, node: ir.Node, dimension: int, source, result, parameters) -> Dim:
        """Record a mapping; returns the dimension that it gives."""
        mapping = SpatialMapping(node, dimension, source, result, parameters)
        self._mappings.setdefault(node, []).append(mapping)
        return following(result)

    def feed(self, value: ir.Value, spatial: Sequence[int]) -> None:
        """Give a graph input its dimensions, of which those at `spatial` are heights and widths."""
        if value in self.standing_still:
            spatial = range(0)
        elif value in self.channels:
            at, rank = self.channels[value], len(self.shape(value))
            spatial = range(1, at) if at == rank - 1 else range(at + 1, rank)
        self._spatial[value] = spatial
        dims = []
        for position, size in enumerate(self.shape(value)):
            if position in spatial and size > 1:
                pixels = SpatialSize(spatial.index(position), size)
                self._sources.setdefault(value, []).append(pixels)
                dims.append(following(pixels))
            else:
                dims.append(fixed(size))
        self.dims[value] = tuple(dims)

    def cover(
        self, node: ir.Node, dimension: int, size: SpatialSize, parameters: Parameters, summed: bool
    ) -> None:
        """Record a window that covers a whole map.

        `summed` says whether a weight sums over it, as a fully-connected interface does; a pooling
        does not.
        """
        self._covering.setdefault(node, {})[dimension] = size
        self._unmoved.setdefault(node, {})[dimension] = parameters
        self._anchored.append(size)
        if summed:
            self._interfaces.append(size)

    def read_channels(self, node: ir.Node, dim: Dim) -> None:
        """Record that a convolution sums over a dimension as its channels, which must not move."""
        self._channels.extend(sizes_in(dim))
        if moves(dim):
            raise unfollowed(node, "reads heights or widths as its channels")

    def read_map(self, dims: Dims) -> None:
        """Record that a convolution or pooling reads a map of these dimensions."""
        for dim in dims:
            self._maps.extend(sizes_in(dim))

    def anchor(self, dims: Dims) -> None:
        """Record that the sizes in these dimensions are fixed, by an output of the graph say."""
        for dim in dims:
            self._anchored.extend(f.spatial_size for f in dim if f.spatial_size is not None)

    def add_weight(self, node: ir.Node, value: ir.Value, dims: Dims, summed: bool) -> None:
        """Record a weight whose dimensions, as `value` has them, hold spatial sizes."""
        held = weight_source(value)
        if held is None:
            return
        dims = dims_at_source(value, dims, self.inferred.constants)
        self._weights.append(SpatialWeight(held, dims, summed, node))
        sizes = [size for dim in dims for size in sizes_in(dim)]
        self._anchored.extend(sizes)
        if summed:
            self._interfaces.extend(sizes)

    def add_table(self, node: ir.Node, value: ir.Value, aligned: Dims) -> None:
        """Record a weight that is added to, or scales, single positions of a map.

        `aligned` are the map's dimensions; the weight's are the last of them, or single numbers.
        """
        shape = self.shape(value)
        aligned = aligned[len(aligned) - len(shape) :] if shape else ()
        if len(aligned) != len(shape) or weight_source(value) is None:
            return
        dims = tuple(
            dim if size > 1 and target_size(dim) == size else fixed(size)
            for dim, size in zip(aligned, shape, strict=True)
        )
        if any(moves(dim) for dim in dims):
            self.add_weight(node, value, dims, summed=False)

    def look_up(self, node: ir.Node, value: ir.Value, aligned: Dims) -> bool:
        """Record that `value`, which is added to `aligned`, is looked up by relative positions.

        Returns False, and records nothing, where it is not.
        """
        found = find_lookup(node, value, aligned, self)
        if found is None:
            return False
        lookup, dims = found
        self._lookups.append(lookup)
        self.dims.update(dims)
        return True

    def look_up_row(self, node: ir.Node) -> bool:
        """Record the table whose products `node` picks by the offsets between a row's pixels.

        Its first input has a row of pixels and, for each, a number for each offset. Returns False,
        and records nothing, where no table of offsets makes these.
        """
        value = node.inputs[0]
        row = single_size(self.of(value)[0])
        if row is None:
            return False
        found = find_factors(value, (self.of(value)[0], offsets(row), *self.of(value)[2:]), self)
        if found is None:
            return False
        table, dims, known = found
        self.add_weight(node, table, dims, summed=False)
        self.dims.update(known)
        return True

    def refuse(self, dims: Dims) -> None:
        """Record dimensions that an operator reads in a way that cannot be followed."""
        self.anchor(dims)
        for dim in dims:
            self._unfollowed.extend(sizes_in(dim))

    # --- the result -------------------------------------------------------------------------------

    def apart_from_maps(self) -> frozenset[ir.Value]:
        """The inputs and spread maps that no mapping or tie connects with a map.

        A map is what a convolution or a pooling reads. The initial state of a recurrent layer, for
        example, has three dimensions like a signal, but no convolution reads it.
        """
        # A search through sizes that mappings connect, from those of maps on.
        neighbours: dict[SpatialSize, set[SpatialSize]] = defaultdict(set)
        for mappings in self._mappings.values():
            for mapping in mappings:
                if mapping.source is not None:
                    one, other = mapping.source.root, mapping.result.root
                    neighbours[one].add(other)
                    neighbours[other].add(one)
        reached: set[SpatialSize] = set()
        pending = [size.root for size in self._maps]
        while pending:
            size = pending.pop()
            if size not in reached:
                reached.add(size)
                pending += neighbours[size]
        return frozenset(
            value
            for value, sizes in self._sources.items()
            if not any(size.root in reached for size in sizes)
        )

    def channels_of_inputs(self) -> dict[ir.Value, int]:
        """The inputs of which a convolution reads a dimension as channels, and which one."""
        read = {size.root for size in self._channels}
        return {
            value: position
            for value in graph_inputs(self.model)
            for position, dim in enumerate(self.dims[value])
            if single_size(dim) in read
        }

    def source_count(self) -> int:
        """How many inputs and spread maps have a size that may follow the input."""
        return len(self._sources)

    def finish(self) -> SpatialAnalysis:
        """The analysis, in which every size stands for all that were tied to it."""
        resolved: dict[int, Dim] = {}  # by identity: many tensors share a dimension

        def resolve(dim: Dim) -> Dim:
            if id(dim) not in resolved:
                resolved[id(dim)] = tuple(
                    replace(
                        factor,
                        spatial_size=factor.spatial_size and factor.spatial_size.root,
                        offsets_of=factor.offsets_of and factor.offsets_of.root,
                        parts=tuple(resolve(part) for part in factor.parts),
                    )
                    if factor.moves
                    else factor
                    for factor in dim
                )
            return resolved[id(dim)]

        producers, consumers = defaultdict(list), defaultdict(list)
        final: dict[ir.Node, tuple[SpatialMapping, ...]] = {}
        for node, found in self._mappings.items():
            final[node] = tuple(
                replace(each, source=each.source and each.source.root, result=each.result.root)
                for each in found
            )
            for mapping in final[node]:
                producers[mapping.result].append(mapping)
                if mapping.source is not None:
                    consumers[mapping.source].append(mapping)
        single = [size for size in producers if size.target == 1]
        return SpatialAnalysis(
            model=self.model,
            inferred=self.inferred,
            spatial=self._spatial,
            dims={value: tuple(map(resolve, dims)) for value, dims in self.dims.items()},
            mappings=final,
            producers={size: tuple(each) for size, each in producers.items()},
            consumers={size: tuple(each) for size, each in consumers.items()},
            anchored=frozenset([size.root for size in self._anchored] + single),
            interfaces=frozenset(size.root for size in self._interfaces),
            unfollowed=frozenset(size.root for size in self._unfollowed),
            unmoved=self._unmoved,
            covering={
                node: {dimension: size.root for dimension, size in sizes.items()}
                for node, sizes in self._covering.items()
            },
            weights=tuple(
                replace(weight, dims=tuple(map(resolve, weight.dims))) for weight in self._weights
            ),
            lookups=tuple(
                replace(
                    each,
                    table_dims=tuple(map(resolve, each.table_dims)),
                    dims=tuple(map(resolve, each.dims)),
                )
                for each in self._lookups
            ),
        )


def unfollowed(node: ir.Node, why: str) -> GraphScaleError:
    """The error for an operator whose use of heights and widths cannot be rescaled."""
    return GraphScaleError(
        f"node {node_name(node)!r} ({node.op_type}) {why}, which graphscale cannot rescale; "
        f"cut the model before it or replace the node{OWN_SIZE}"
    )
