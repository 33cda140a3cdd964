"""Find the pre-train sizes, the paddings and the sampling grids.

In go the analysis, the chosen kernels and the pre-train pixels of the inputs; out comes a
`Geometry`.

Terms:
    due: The pre-train size that a target size asks for: the target size times the input ratio.
    fixed size: A size that several layers share. Fixed sizes that are equal in the target are equal
        in the pre-train network: one table per axis, filled in the order of the graph, holds the
        pre-train size of each.
    chain: The mappings between two fixed sizes. Each size inside a chain has one reader, the next
        mapping, so that it may be a pixel larger or smaller than its due.
    phase: How far the pre-train pixels stand off the target's, in pixels of the pre-train map.

Each chain is solved by dynamic programming over (size, phase). Symmetric padding is cheap; unequal
padding, cropping, a phase, and a size away from its due are expensive. The phase is carried along
and counts where a chain ends. Two 2×2 convolutions in one chain therefore take padding 1 and 0 in
turn, and a single one between two joins pads one side, alternating from block to block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, floor

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.core.plan import Grid
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.shrink.choose_kernels import ChosenKernels
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import SpatialSize, single_size
from graphscale.passes.spatial.geometry import Geometry, frames, phase
from graphscale.passes.spatial.mapping import Option, Parameters, SpatialMapping

# Costs. Their unit is arbitrary: only their ratios matter. The costs of padding are those of the
# operators (spatial/mapping.py, spatial/rules): 0.3 per pixel of padding, 1 for unequal padding,
# 50 per cropped pixel.
#
# Pixels by which a size inside a chain may differ from its due. With 1.6 there are three or four
# candidates, at least one of them on each side of the due.
_INNER_RANGE = 1.6
# Per pixel by which a size inside a chain differs from its due. They are far below the cost of
# padding, so that they only decide between equally good chains. A size above its due costs more:
# of two convolutions with padding 0, 1 and padding 1, 0, the first order computes less.
_INNER_COST_BELOW = 0.05
_INNER_COST_ABOVE = 0.06
# Per pixel by which a fixed size differs from its due, when it is chosen. It is less than the cost
# of unequal padding: a chain of one even kernel rather ends a pixel off than pads unequally.
_FIXED_COST = 0.5
# Per squared pixel of phase. Where a chain ends, half a pixel costs half as much as unequal
# padding. Inside a chain a phase may still be cancelled by the next mapping and costs little. In
# front of a fully-connected layer, whose weights belong to positions, it costs most.
_PHASE_COST = 2.0
_INNER_PHASE_COST = 0.05
_INTERFACE_PHASE_COST = 6.0
# Per squared pixel between the phases of two maps that are joined (by Add, Concat ...) at a chain's
# end; and per pixel where they are more than half a pixel apart, which costs more than any padding.
_JOIN_PHASE_COST = 2.0
_APART_COST = 10.0
_LARGEST_APART = 0.5

# Phases are rounded to 1/32 pixel to tell states apart. Kernels and strides move grids by halves,
# quarters ... of a pixel, so that states with different phases are hardly ever merged.
_PHASE_STEPS = 32
# How many states, the cheapest ones, are kept behind each mapping of a chain. Most chains never
# have as many. Chains of ten and more kernels would reach 800, nearly all of them far too expensive
# ever to win: the plans of 370 networks (those of the tests) are the same with 64 states, with 16,
# and without a limit.
_BEAM = 64
# Cost of a chain that cannot end at the wanted size; larger than any real cost.
_IMPOSSIBLE = 1e6

_Grids = tuple[Grid, Grid]  # of the target and of the pre-train network


def solve_geometry(
    analysis: SpatialAnalysis, kernels: ChosenKernels, input_sizes: Mapping[SpatialSize, int]
) -> Geometry:
    """Solve every size and every mapping's parameters for the given pre-train input sizes.

    Raises:
        GraphScaleError: no padding makes a map fit; names the node.
    """
    return _Solver(analysis, kernels, input_sizes).solve()


class _Solver:
    """Solves one network: the sizes and grids found so far, and the steps that find the next."""

    def __init__(
        self,
        analysis: SpatialAnalysis,
        kernels: ChosenKernels,
        input_sizes: Mapping[SpatialSize, int],
    ) -> None:
        self.analysis = analysis
        self.kernels = kernels
        self.inputs = dict(input_sizes)
        self.frame = frames(input_sizes)
        # What has been found so far; `Geometry` explains the three.
        self.sizes: dict[SpatialSize, int] = dict(input_sizes)
        self.parameters: dict[SpatialMapping, Parameters] = {}
        self.grids: dict[ir.Value, dict[int, _Grids]] = {}
        # Per axis, the table of fixed sizes: target size -> pre-train size.
        self.map: dict[int, dict[int, int]] = {}
        for size, pixels in input_sizes.items():
            self.map.setdefault(size.axis, {1: 1})[size.target] = pixels

    def solve(self) -> Geometry:
        """Solve the network node by node, in the order of the graph."""
        # The inputs' grids: pixel i of the image stands at i.
        for value in graph_inputs(self.analysis.model):
            grids = self.grids.setdefault(value, {})
            for position, dim in enumerate(self.analysis.of(value)):
                size = single_size(dim)
                if size is not None:
                    pixels = self.sizes[size]
                    grids[position] = Grid(0.0, 1.0, size.target), Grid(0.0, 1.0, pixels)
        for node in self.analysis.model.graph:
            # The first mapping of a chain solves the whole chain; then its others are known.
            for mapping in self.analysis.mappings.get(node, ()):
                if mapping not in self.parameters:
                    self._solve_chain(mapping)
            self._move_grids(node)
        return Geometry(self.inputs, self.sizes, self.parameters, self._kernels(), self.grids)

    def _kernels(self) -> dict[ir.Node, tuple[int, ...]]:
        """The chosen kernels; a kernel that covers its whole map becomes as large as the map."""
        found = {}
        for node, kernel in self.kernels.pretrain.items():
            covered = self.analysis.covering.get(node, {})
            found[node] = tuple(
                self.sizes[covered[at + 2]] if at + 2 in covered else taps
                for at, taps in enumerate(kernel)
            )
        return found

    # --- chains -----------------------------------------------------------------------------------

    def _solve_chain(self, first: SpatialMapping) -> None:
        """Fix the size at the end of the chain that starts here, then the sizes inside it."""
        chain = self._chain_from(first)
        end = chain[-1].result
        grids = self._source_grids(first)
        if end not in self.sizes:
            self._fix(end, chain, grids)
        best = self._best(chain, grids, {self.sizes[end]})
        if not best:
            node = chain[-1].node
            raise GraphScaleError(
                f"node {node_name(node)!r} ({node.op_type}): no padding takes the map to "
                f"{self.sizes[end]} pixels, which other layers need; give another --input-size "
                "(the target's own always fits)"
            )
        ((_, options),) = best.values()
        for mapping, option in zip(chain, options, strict=True):
            self.parameters[mapping] = option.parameters
            self.sizes.setdefault(mapping.result, option.size)

    def _chain_from(self, mapping: SpatialMapping) -> list[SpatialMapping]:
        """The chain from `mapping` on, to the first fixed size."""
        chain = [mapping]
        while self._inside_chain(mapping.result):
            (mapping,) = self.analysis.consumers[mapping.result]
            chain.append(mapping)
        return chain

    def _chain_to(self, mapping: SpatialMapping) -> list[SpatialMapping]:
        """The chain that ends with `mapping`, from the last fixed size before it."""
        chain = [mapping]
        while mapping.source is not None and self._inside_chain(mapping.source):
            (mapping,) = self.analysis.producers[mapping.source]
            chain.insert(0, mapping)
        return chain

    def _inside_chain(self, size: SpatialSize) -> bool:
        """Whether exactly one mapping makes a size, another one reads it, and nothing fixes it."""
        if size in self.analysis.anchored or size in self.inputs:
            return False
        producers = self.analysis.producers.get(size, ())
        consumers = self.analysis.consumers.get(size, ())
        return len(producers) == len(consumers) == 1 and producers[0] is not consumers[0]

    def _source_size(self, mapping: SpatialMapping) -> int | None:
        """Pre-train pixels that a mapping reads; None where they are not known yet."""
        return 1 if mapping.source is None else self.sizes.get(mapping.source)

    def _source_grids(self, mapping: SpatialMapping) -> _Grids | None:
        """Grids of the map that a mapping reads, where they are known."""
        if mapping.source is None:
            return None
        return self.grids.get(mapping.node.inputs[0], {}).get(mapping.dimension)

    def _fix(self, end: SpatialSize, chain: list[SpatialMapping], grids: _Grids | None) -> None:
        """Choose the pre-train size at the end of a chain.

        A size that the table holds already is taken. Otherwise the size is taken that is cheapest
        for all the chains together that end there.
        """
        known = self.map.setdefault(end.axis, {1: 1})
        divisor = self.analysis.divisor(end)
        if end.target in known and known[end.target] % divisor == 0:
            self.sizes[end] = known[end.target]
            return
        due = self._due(end)
        # The other chains that end here and whose beginnings are solved: branches of a join.
        others = [
            other
            for other in map(self._chain_to, self.analysis.producers[end])
            if other != chain
            and other[0].source is not None
            and other[0].source is not end
            and self._source_size(other[0]) is not None
        ]
        costs: dict[int, float] = {}
        # The range around the due is widened until all chains can reach some size in it.
        for reach in (1.0, 2.0, 4.0, 8.0):
            for size in range(max(1, ceil(due - reach)), floor(due + reach) + 1):
                if size % divisor or not _is_monotone(known, end.target, size):
                    continue
                cost = _FIXED_COST * abs(size - due)
                for each, start in [(chain, grids), *((other, None) for other in others)]:
                    best = self._best(each, start, {size})
                    cost += best[size][0] if best else _IMPOSSIBLE
                costs[size] = cost
            if costs and min(costs.values()) < _IMPOSSIBLE:
                break
        if not costs:
            raise GraphScaleError(
                f"node {node_name(chain[-1].node)!r}: its map has no size in the pre-train network "
                "that all its readers accept; give another --input-size (the target's own always "
                "fits)"
            )
        size = min(costs, key=costs.get)
        self.sizes[end] = size
        known.setdefault(end.target, size)

    def _due(self, size: SpatialSize) -> float:
        """The pre-train size that the table of fixed sizes, or else the input ratio, asks for."""
        known = self.map.get(size.axis, {})
        if size.target in known:
            return known[size.target]
        target, pretrain = self.frame.get(size.axis, (1, 1))
        return max(1.0, size.target * pretrain / target)

    def _best(
        self, chain: list[SpatialMapping], grids: _Grids | None, ends: set[int]
    ) -> dict[int, tuple[float, list[Option]]]:
        """For each size in `ends` that the chain can reach: (cost, the cheapest options).

        Dynamic programming, mapping by mapping. A state is all that the rest of the chain depends
        on: the size of the map reached so far, and its phase. For each state only the cheapest way
        that leads there is kept, as (cost, options, grids).
        """
        joined = self._joined_phases(chain[-1])
        states = {(self._source_size(chain[0]), 0.0): (0.0, [], grids)}
        for index, mapping in enumerate(chain):
            last = index == len(chain) - 1
            due = self._due(mapping.result)
            wanted = ends if last else _around(due)
            goal = self.kernels.goal(mapping)
            following: dict[tuple[int, float], tuple] = {}
            # Each state is continued by each way to set this mapping's parameters.
            for (size, _), (cost, options, at) in states.items():
                for option in mapping.options(goal, size, wanted):
                    moved = self._moved(mapping, option.size, option.parameters, at)
                    off = self._phase(mapping.axis, moved)
                    total = cost + option.cost + self._phase_cost(mapping, off, last)
                    if last and moved is not None:
                        total += sum(_join_cost(off - other) for other in joined)
                    if not last:
                        above = option.size - due
                        total += (
                            _INNER_COST_ABOVE * above if above > 0 else _INNER_COST_BELOW * -above
                        )
                    key = (option.size, round(off * _PHASE_STEPS))
                    # The margin lets the first of equally cheap ways win, whatever the rounding.
                    if key not in following or total < following[key][0] - 1e-9:
                        following[key] = (total, [*options, option], moved)
            states = dict(sorted(following.items(), key=lambda item: item[1][0])[:_BEAM])
        # The states are sorted by cost: the first one at each end size is the cheapest there.
        best: dict[int, tuple[float, list[Option]]] = {}
        for (size, _), (cost, options, _) in states.items():
            if size not in best:
                best[size] = (cost, options)
        return best

    def _phase_cost(self, mapping: SpatialMapping, off: float, last: bool) -> float:
        """Cost of the phase `off` behind a mapping, which is the chain's `last` or not."""
        if not last:
            return _INNER_PHASE_COST * off * off
        interface = mapping.result in self.analysis.interfaces
        return (_INTERFACE_PHASE_COST if interface else _PHASE_COST) * off * off

    def _phase(self, axis: int, grids: _Grids | None) -> float:
        """The phase of a map; 0 where its grids are not known."""
        return phase(grids, self.frame[axis]) if grids is not None and axis in self.frame else 0.0

    def _joined_phases(self, mapping: SpatialMapping) -> list[float]:
        """Phases of the maps that a mapping's result is joined with, as far as they are known.

        From the mapping's output the search passes through operators that map no size (activations,
        normalization) and ends at the first operator that reads another map of the same size.
        """
        size = mapping.result
        phases = []
        pending = list(mapping.node.outputs)
        seen: set[ir.Value] = set()  # the branches of a block meet again: many ways lead to a value
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            for usage in value.uses():
                node = usage.node
                if node in self.analysis.mappings:
                    continue
                others = [each for each in node.inputs if each is not None and each is not value]
                joined = [
                    (other, position)
                    for other in others
                    for position, dim in enumerate(self.analysis.dims.get(other, ()))
                    if single_size(dim) is size
                ]
                for other, position in joined:
                    grids = self.grids.get(other, {}).get(position)
                    if grids is not None:
                        phases.append(self._phase(size.axis, grids))
                if not joined:
                    pending += node.outputs
        return phases

    # --- grids ------------------------------------------------------------------------------------

    def _moved(
        self, mapping: SpatialMapping, pixels: int, parameters: Parameters, grids: _Grids | None
    ) -> _Grids | None:
        """Both networks' grids behind a mapping.

        Args:
            mapping: The mapping.
            pixels: Its output's size in the pre-train network.
            parameters: Its parameters there.
            grids: The grids in front of it; None where it reads no map, or one without grids.
        """
        size = mapping.result.target
        if grids is not None:
            return mapping.target.grid(grids[0], size), parameters.grid(grids[1], pixels)
        if mapping.source is not None or mapping.axis not in self.frame:
            return None
        whole = self.frame[mapping.axis]
        target = mapping.target.grid_over(whole[0], size)
        pretrain = parameters.grid_over(whole[1], pixels)
        return None if target is None or pretrain is None else (target, pretrain)

    def _move_grids(self, node: ir.Node) -> None:
        """Record the grids of a node's outputs: moved by its mappings, else its inputs' mean."""
        mappings = {each.dimension: each for each in self.analysis.mappings.get(node, ())}
        for output in node.outputs:
            if output not in self.analysis.dims:
                continue
            grids = self.grids.setdefault(output, {})
            for position, dim in enumerate(self.analysis.of(output)):
                size = single_size(dim)
                if size is None or size not in self.sizes:
                    continue
                mapping = mappings.get(position)
                if mapping is None or mapping.result is not size:  # a Reshape moves dimensions
                    mapping = next((m for m in mappings.values() if m.result is size), None)
                if mapping is not None:
                    parameters, source = self.parameters[mapping], self._source_grids(mapping)
                    moved = self._moved(mapping, self.sizes[size], parameters, source)
                else:
                    moved = self._mean(node, size)
                if moved is not None:
                    grids[position] = moved

    def _mean(self, node: ir.Node, size: SpatialSize) -> _Grids | None:
        """The mean of the grids that a node's inputs have on `size`, as an Add would mix them."""
        found = []
        for value in node.inputs:
            for position, dim in enumerate(self.analysis.dims.get(value, ())):
                if single_size(dim) is size:
                    grids = self.grids.get(value, {}).get(position)
                    if grids is not None:
                        found.append(grids)
                        break
        if len(found) < 2:
            return found[0] if found else None
        return tuple(
            Grid(
                sum(grids[side].origin for grids in found) / len(found),
                sum(grids[side].pitch for grids in found) / len(found),
                found[0][side].size,
            )
            for side in (0, 1)
        )


def _is_monotone(known: Mapping[int, int], target: int, size: int) -> bool:
    """Whether the order of sizes is kept: a larger target size gets no smaller pre-train size."""
    return all(
        mapped <= size if smaller < target else mapped >= size for smaller, mapped in known.items()
    )


def _join_cost(apart: float) -> float:
    """Cost of joining two maps whose phases are `apart`."""
    return _JOIN_PHASE_COST * apart * apart + _APART_COST * abs(apart) * (
        abs(apart) > _LARGEST_APART
    )


def _around(due: float) -> Iterable[int]:
    """The candidates for a size inside a chain."""
    return range(max(1, ceil(due - _INNER_RANGE)), int(due + _INNER_RANGE) + 1)
