"""Find the pre-train extents, paddings and sampling grids.

Extents that are equal in the target are equal in the pre-train network: one map per axis, chosen
extent by extent in the order of the graph, each near the target's times the input ratio. Between
two such fixed extents stands a chain of operators whose inner extents are free by a pixel or so.
A chain is solved by dynamic programming over (extent, sampling phase): symmetric padding is cheap,
unequal padding, cropping, a phase away from the target's and an extent away from its due are dear.
So two 2×2 convolutions take padding 1 and 0 in turn, and a lone one between two joins pads one
side, alternating from block to block, because the phase is carried along and counts where chains
end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.shrink.choose_kernels import node_name
from graphscale.passes.spatial.dimensions import Extent, single_extent
from graphscale.passes.spatial.links import Grid, Link, Option, Resampled, divisor
from graphscale.passes.spatial.traced import Traced

_FREE_RANGE = 1.6  # pixels that an inner extent of a chain may be off its due
_FREE_COST = 0.05  # per pixel below its due
_FREE_COST_ABOVE = 0.06  # per pixel above: of padding 0, 1 and 1, 0 the first computes less
_FIXED_COST = 0.5  # per pixel, where an extent is fixed for the first time
_STATES = 64  # kept per link of a chain, the cheapest
_PHASE_STEPS = 32  # phases that differ by less than a pixel's 32nd part count as one
_PHASE_COST = 2.0  # per squared pixel at the end of a chain
_INNER_PHASE_COST = 0.05
_JOIN_PHASE_COST = 2.0  # per squared pixel between the maps that a chain's end is joined with
_APART_COST = 10.0  # per pixel, where they are more than half a pixel apart
_INTERFACE_PHASE_COST = 6.0


@dataclass
class Geometry:
    """The solved geometry.

    Attributes:
        inputs: Extent of each input axis -> pre-train pixels, as given.
        solved: Pre-train pixels of every extent.
        grids: (target, pre-train) sampling grid of each tensor's dimensions that follow the input.
    """

    inputs: dict[Extent, int]
    solved: dict[Extent, int] = field(default_factory=dict)
    grids: dict[ir.Value, dict[int, tuple[Grid, Grid]]] = field(default_factory=dict)


def phase(grids: tuple[Grid, Grid], inputs: tuple[int, int]) -> float:
    """How far the pre-train grid is off the target's, in pixels of the pre-train tensor."""
    target, pretrain = grids
    offset = pretrain.centre(inputs[1]) - target.centre(inputs[0])
    return offset * inputs[1] / pretrain.pitch


def solve_geometry(traced: Traced, inputs: Mapping[Extent, int]) -> Geometry:
    """Solve every extent and every link's numbers for the given pre-train input extents.

    Raises:
        GraphScaleError: no padding makes a map fit; names the node.
    """
    return _Solver(traced, {extent.root: size for extent, size in inputs.items()}).solve()


class _Solver:
    def __init__(self, traced: Traced, inputs: dict[Extent, int]) -> None:
        self.traced = traced
        self.geometry = Geometry(inputs, dict(inputs))
        # Per axis: extents of the first input, and the map from target to pre-train extent.
        self.frame: dict[int, tuple[int, int]] = {}
        self.map: dict[int, dict[int, int]] = {}
        for extent, size in inputs.items():
            self.frame.setdefault(extent.axis, (extent.target, size))
            self.map.setdefault(extent.axis, {1: 1})[extent.target] = size

    def solve(self) -> Geometry:
        for value in graph_inputs(self.traced.model):
            grids = self.geometry.grids.setdefault(value, {})
            for position, dim in enumerate(self.traced.of(value)):
                extent = single_extent(dim)
                if extent is not None:
                    size = self.geometry.solved[extent]
                    grids[position] = (Grid(0.0, 1.0, extent.target), Grid(0.0, 1.0, size))
        for node in self.traced.model.graph:
            for link in self.traced.links.get(node, []):
                if link.pretrain is None:
                    self._solve_chain(link)
            self._move_grids(node)
        return self.geometry

    # --- chains -----------------------------------------------------------------------------------

    def _solve_chain(self, first: Link) -> None:
        chain = self._chain_from(first)
        end = chain[-1].result.root
        grids = self._source_grids(first)
        if end not in self.geometry.solved:
            self._fix(end, chain, grids)
        best = self._best(chain, grids, {self.geometry.solved[end]})
        if not best:
            name = node_name(chain[-1].node)
            raise GraphScaleError(
                f"node {name!r} ({chain[-1].node.op_type}): no padding takes the map to "
                f"{self.geometry.solved[end]} pixels, which other layers need; "
                "give another --input-size"
            )
        ((_, options),) = best.values()
        for link, option in zip(chain, options, strict=True):
            link.pretrain = option.numbers
            self.geometry.solved.setdefault(link.result.root, option.extent)

    def _chain_from(self, link: Link) -> list[Link]:
        chain = [link]
        while self._free(link.result.root):
            (link,) = link.result.root.consumers
            chain.append(link)
        return chain

    def _chain_to(self, link: Link) -> list[Link]:
        chain = [link]
        while link.source is not None and self._free(link.source.root):
            (link,) = link.source.root.producers
            chain.insert(0, link)
        return chain

    def _free(self, extent: Extent) -> bool:
        """Whether an extent is inside a chain: made by one link, used by one other."""
        return (
            not extent.anchored
            and extent not in self.geometry.inputs
            and len(extent.producers) == 1
            and len(extent.consumers) == 1
            and extent.producers[0] is not extent.consumers[0]
        )

    def _source_extent(self, link: Link) -> int | None:
        return 1 if link.source is None else self.geometry.solved.get(link.source.root)

    def _source_grids(self, link: Link) -> tuple[Grid, Grid] | None:
        """Grids at the input of a chain, of the node's input where it has them."""
        if link.source is None:
            return None
        value = link.node.inputs[0]
        for position, dim in enumerate(self.traced.of(value)):
            if single_extent(dim) is link.source.root:
                found = self.geometry.grids.get(value, {}).get(position)
                if found is not None and self._position(link, value) in (position, None):
                    return found
        return None

    def _position(self, link: Link, value: ir.Value) -> int | None:
        whole = link.node.op_type in ("Resize", "Upsample", "Slice", "Pad", "Expand", "Tile")
        return link.position if whole else link.position + 2

    def _fix(self, end: Extent, chain: list[Link], grids: tuple[Grid, Grid] | None) -> None:
        """Choose the pre-train size of an extent that stands at the end of a chain."""
        known = self.map.setdefault(end.axis, {1: 1})
        if end.target in known and self._fits(end, known[end.target]):
            self.geometry.solved[end] = known[end.target]
            return
        due = self._due(end)
        others = [
            other
            for other in map(self._chain_to, end.producers)
            if other != chain
            and self._source_extent(other[0]) is not None
            and other[0].source is not None
            and other[0].source.root is not end
        ]
        costs: dict[int, float] = {}
        for reach in (1.0, 2.0, 4.0, 8.0):
            low, high = max(1, int(due - reach + 0.999)), int(due + reach)
            for size in range(low, high + 1):
                ordered = all(
                    (mapped <= size) if target < end.target else (mapped >= size)
                    for target, mapped in known.items()
                )
                if not ordered or not self._fits(end, size):
                    continue
                cost = _FIXED_COST * abs(size - due)
                for each, start in [(chain, grids), *((other, None) for other in others)]:
                    best = self._best(each, start, {size})
                    cost += best[size][0] if best else 1e6
                costs[size] = cost
            if costs and min(costs.values()) < 1e6:
                break
        if not costs:
            raise GraphScaleError(
                f"node {node_name(chain[-1].node)!r}: its map has no size in the pre-train network "
                "that all its readers accept; give another --input-size"
            )
        size = min(costs, key=costs.get)
        self.geometry.solved[end] = size
        known.setdefault(end.target, size)

    def _fits(self, extent: Extent, size: int) -> bool:
        """Whether the readers that need a divisible map get one."""
        return size % divisor(extent) == 0

    def _due(self, extent: Extent) -> float:
        known = self.map.get(extent.axis, {})
        if extent.target in known:
            return known[extent.target]
        target, pretrain = self.frame.get(extent.axis, (1, 1))
        return max(1.0, extent.target * pretrain / target)

    def _best(
        self, chain: list[Link], grids: tuple[Grid, Grid] | None, ends: set[int]
    ) -> dict[int, tuple[float, list[Option]]]:
        """For each reachable end extent the cheapest options along the chain."""
        start = self._source_extent(chain[0])
        met = self._met(chain[-1])
        states = {(start, 0.0): (0.0, [], grids)}
        for index, link in enumerate(chain):
            last = index == len(chain) - 1
            due = self._due(link.result.root)
            wanted = ends if last else _around(due)
            following: dict[tuple[int, float], tuple] = {}
            for (extent, _), (cost, options, at) in states.items():
                for option in link.options(extent, wanted):
                    moved = self._moved(link, option, at)
                    off = self._phase(link.axis, moved)
                    total = cost + option.cost + self._phase_cost(link, off, last)
                    if last and moved is not None:
                        total += sum(_join_cost(off - other) for other in met)
                    if not last:
                        above = option.extent - due
                        total += _FREE_COST_ABOVE * above if above > 0 else _FREE_COST * -above
                    key = (option.extent, round(off * _PHASE_STEPS))
                    if key not in following or total < following[key][0] - 1e-9:
                        following[key] = (total, [*options, option], moved)
            states = dict(sorted(following.items(), key=lambda item: item[1][0])[:_STATES])
        best: dict[int, tuple[float, list[Option]]] = {}
        for (extent, _), (cost, options, _) in states.items():
            if extent not in best or cost < best[extent][0]:
                best[extent] = (cost, options)
        return best

    def _phase_cost(self, link: Link, off: float, last: bool) -> float:
        if not last:
            return _INNER_PHASE_COST * off * off
        weight = _INTERFACE_PHASE_COST if link.result.root.interface else _PHASE_COST
        return weight * off * off

    def _phase(self, axis: int, grids: tuple[Grid, Grid] | None) -> float:
        return phase(grids, self.frame[axis]) if grids is not None and axis in self.frame else 0.0

    def _met(self, link: Link) -> list[float]:
        """Phases of the maps, known by now, that a chain's result is joined with."""
        extent = link.result.root
        phases = []
        pending = list(link.node.outputs)
        while pending:
            value = pending.pop()
            for usage in value.uses():
                node = usage.node
                if node in self.traced.links:
                    continue
                others = [each for each in node.inputs if each is not None and each is not value]
                found = [
                    grids
                    for other in others
                    for position, dim in enumerate(self.traced.dims.get(other, ()))
                    if single_extent(dim) is extent
                    and (grids := self.geometry.grids.get(other, {}).get(position)) is not None
                ]
                phases += [self._phase(extent.axis, grids) for grids in found]
                joined = any(
                    single_extent(dim) is extent
                    for other in others
                    for dim in self.traced.dims.get(other, ())
                )
                if not joined:
                    pending += node.outputs
        return phases

    def _moved(
        self, link: Link, option: Option, grids: tuple[Grid, Grid] | None
    ) -> tuple[Grid, Grid] | None:
        size = link.result.target
        if grids is None:
            if isinstance(link.target, Resampled) and link.source is None:
                return self._spread(link, option.extent)
            return None
        return (
            link.target.grid(grids[0], size),
            option.numbers.grid(grids[1], option.extent),
        )

    def _spread(self, link: Link, extent: int) -> tuple[Grid, Grid] | None:
        """Grids of one value spread over a map of the whole picture."""
        if link.axis not in self.frame:
            return None
        sizes = (link.result.target, extent)
        return tuple(
            Grid((whole / size - 1) / 2, whole / size, size)
            for whole, size in zip(self.frame[link.axis], sizes)
        )

    # --- grids ------------------------------------------------------------------------------------

    def _move_grids(self, node: ir.Node) -> None:
        """Grids of a node's outputs: through its links, else the mean of its inputs' grids."""
        links = {link.result.root: link for link in self.traced.links.get(node, [])}
        for output in node.outputs:
            if output not in self.traced.dims:
                continue
            grids = self.geometry.grids.setdefault(output, {})
            for position, dim in enumerate(self.traced.of(output)):
                extent = single_extent(dim)
                if extent is None or extent not in self.geometry.solved:
                    continue
                link = links.get(extent)
                if link is not None and self._made_here(link, node, position):
                    option = Option(self.geometry.solved[extent], link.pretrain, 0.0)
                    moved = self._moved(link, option, self._source_grids(link))
                else:
                    moved = self._mean(node, extent, position)
                if moved is not None:
                    grids[position] = moved

    def _made_here(self, link: Link, node: ir.Node, position: int) -> bool:
        return self._position(link, node.inputs[0]) == position

    def _mean(self, node: ir.Node, extent: Extent, position: int) -> tuple[Grid, Grid] | None:
        found = []
        for value in node.inputs:
            if value is None:
                continue
            for at, dim in enumerate(self.traced.dims.get(value, ())):
                if single_extent(dim) is extent:
                    grids = self.geometry.grids.get(value, {}).get(at)
                    if grids is not None:
                        found.append(grids)
                        break
        if not found:
            return None
        return tuple(
            Grid(
                sum(grids[side].origin for grids in found) / len(found),
                sum(grids[side].pitch for grids in found) / len(found),
                found[0][side].extent,
            )
            for side in (0, 1)
        )


def _join_cost(apart: float) -> float:
    return _JOIN_PHASE_COST * apart * apart + _APART_COST * abs(apart) * (abs(apart) > 0.5)


def _around(due: float) -> range:
    low = max(1, -int(-(due - _FREE_RANGE) // 1))
    return range(low, int(due + _FREE_RANGE) + 1)
