"""Operators that rearrange, join and split dimensions: Reshape, Transpose, Concat, Split.

Where a Reshape's target is a constant, its numbers are written anew for the pre-train network.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import (
    Dim,
    DimensionFactor,
    Dims,
    SpatialSize,
    fixed,
    following,
    moves,
    regroup,
    section,
    single_size,
    sizes_in,
    tie_dims,
    total,
)
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter
from graphscale.passes.spatial.rules.blocks import Blocks, ScaledWindows


@register("Flatten", "Reshape", "Squeeze", "Unsqueeze")
class _Regroup(Rule):
    """The factors of all dimensions keep their order and are grouped into other dimensions.

    A height or width that is cut in two, as by window attention or a space-to-depth stem, becomes
    a number of windows and a window's size, of which one follows the input. Where both meet again
    in one dimension, they are the height or width that was cut.
    """

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        before = analyzer.of(node.inputs[0])

        def cut(size: SpatialSize, first: int) -> tuple[DimensionFactor, DimensionFactor]:
            (at, *_) = (at for at, dim in enumerate(before) if size in sizes_in(dim))
            return analyzer.cut(
                node,
                at,
                size,
                first,
                lambda kept, scaled: ScaledWindows(down=kept) if scaled else Blocks(down=kept),
            )

        dims = regroup(before, analyzer.shape(output), cut)
        if dims is None:
            if any(moves(dim) for dim in before):
                raise unfollowed(node, "cuts a height or width into pieces")
            dims = tuple(fixed(size) for size in analyzer.shape(output))
        if analyzer.cuts:
            dims = tuple(_joined(node, dim, before, analyzer) for dim in dims)
        analyzer.dims[output] = dims

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        dims = rewriter.analysis.of(node.outputs[0])
        if node.op_type != "Reshape" or not any(moves(dim) for dim in dims):
            return
        current = rewriter.analysis.constant(node, 1, "shape")
        if current is None or "shape" in node.attributes:
            return
        # 0 (the input's size) and -1 (what is left) are right in both networks.
        wanted = [
            rewriter.size(dim) if number > 0 and moves(dim) else number
            for number, dim in zip(current, dims, strict=True)
        ]
        rewriter.constants.demand(node, 1, np.asarray(wanted))
        found = rewriter.constants.computed(node.inputs[1], rewriter.shape).reshape(-1).tolist()
        wrong = [at for at, number in enumerate(found) if number != wanted[at]]
        if len(wrong) == 1:
            # The exporter multiplied the batch by sizes. What is left when all other numbers are
            # known is this number, whatever the batch is.
            wanted = [
                rewriter.size(dim) if number == -1 else number for number, dim in zip(wanted, dims)
            ]
            wanted[wrong[0]] = -1
            name = f"{node_name(node)}.shape"
            shape = rewriter.add_initializer(name, np.asarray(wanted, np.int64))
            node.replace_input_with(1, shape)


def _joined(node: ir.Node, dim: Dim, before: Dims, analyzer: Analyzer) -> Dim:
    """`dim` with the sizes that were cut in place of the two numbers that they were cut into."""
    factors = list(dim)
    for at in range(len(factors) - 1):
        for cut in analyzer.cuts:
            pair = factors[at : at + 2]
            part, kept = pair[::-1] if cut.kept_first else pair
            if part.spatial_size is None or kept.moves or kept.size != cut.kept:
                continue
            if part.spatial_size.root is not cut.part.root:
                # A convolution inside windows gives its map a size of its own.
                own = analyzer.scale_windows and part.spatial_size.axis == cut.part.axis
                if not own or part.spatial_size.target != cut.part.target:
                    continue
                part.spatial_size.tie(cut.part)
            # The mapping lets the sampling grid pass; it needs the part in a dimension alone.
            places = [p for p, each in enumerate(before) if single_size(each) is cut.part.root]
            if places:
                whole = analyzer.join(node, places[0], cut, Blocks(up=cut.kept))
            else:
                whole = following(cut.whole.root)
            return _joined(node, (*factors[:at], *whole, *factors[at + 2 :]), before, analyzer)
    return dim


@register("Transpose")
class _Transpose(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
        analyzer.dims[node.outputs[0]] = tuple(dims[axis] for axis in order)


@register("Concat")
class _Concat(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        shape = analyzer.shape(output)
        axis = node.attributes.get_int("axis", 1) % len(shape)
        inputs = [analyzer.of(value) for value in node.inputs]
        result = list(max(inputs, key=lambda dims: sum(moves(dim) for dim in dims)))
        for value, dims in zip(node.inputs, inputs):
            if weight_source(value) is not None:
                # A constant map, such as one of coordinates, that becomes further channels.
                analyzer.add_table(node, value, (*result[:axis], dims[axis], *result[axis + 1 :]))
                continue
            # A value that follows from shapes is computed anew in the pre-train network.
            known = value in analyzer.inferred.constants
            for position, dim in enumerate(dims):
                if position != axis and not tie_dims(result[position], dim) and not known:
                    raise unfollowed(node, "joins maps whose sizes have different origins")
        result[axis] = total(*(dims[axis] for dims in inputs))
        analyzer.dims[output] = tuple(result)


@register("Split")
class _Split(Rule):
    """Channels are split at will; a joined dimension only between maps that it was joined from."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = list(analyzer.of(node.inputs[0]))
        axis = node.attributes.get_int("axis", 0) % len(dims)
        start = 0
        for output in node.outputs:
            size = analyzer.shape(output)[axis]
            if moves(dims[axis]):
                piece = section(dims[axis], start, start + size)
                if piece is None:
                    raise unfollowed(node, "splits a height or width")
            else:
                piece = fixed(size)
            analyzer.dims[output] = (*dims[:axis], piece, *dims[axis + 1 :])
            start += size

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        axis = node.attributes.get_int("axis", 0)
        if not moves(rewriter.analysis.of(node.inputs[0])[axis]):
            return
        sizes = [rewriter.shape(output)[axis] for output in node.outputs]
        if "split" in node.attributes:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
        elif len(node.inputs) > 1 and node.inputs[1] is not None:
            rewriter.constants.demand(node, 1, np.asarray(sizes), freeze=True)


@register("Scatter", "ScatterElements", "ScatterND")
class _Scatter(Rule):
    """Writes into a copy of the first input, at places along dimensions that must stay."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        if node.op_type == "ScatterND":
            addressed = dims[: analyzer.shape(node.inputs[1])[-1]]
        else:
            addressed = (dims[node.attributes.get_int("axis", 0)],)
        if any(moves(dim) for dim in addressed):
            raise unfollowed(node, "writes into single places of a map")
        analyzer.keep(node)
