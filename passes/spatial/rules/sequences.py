"""The sequence operators that torch's dynamo exporter writes for split and chunk.

The dimensions of a sequence's tensors are recorded in `Analyzer.sequences`.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.infer_sequences import split_sizes
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import Dims, fixed, moves
from graphscale.passes.spatial.registry import Rule, register


@register("SplitToSequence")
class _SplitToSequence(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.of(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(dims)
        if moves(dims[axis]):
            raise unfollowed(node, "splits a height or width")
        sizes = split_sizes(node, analyzer.inferred)
        _record(node, analyzer, [(*dims[:axis], fixed(size), *dims[axis + 1 :]) for size in sizes])


@register("SequenceConstruct")
class _SequenceConstruct(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        _record(node, analyzer, [analyzer.of(value) for value in node.inputs])


@register("SequenceAt")
class _SequenceAt(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        index = int(analyzer.inferred.constants[node.inputs[1]])
        analyzer.dims[node.outputs[0]] = analyzer.sequences[node.inputs[0]][index]


@register("ConcatFromSequence")
class _ConcatFromSequence(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        dims = analyzer.sequences[node.inputs[0]]
        axis = node.attributes.get_int("axis")
        if any(len(each) > axis and moves(each[axis]) for each in dims):
            raise unfollowed(node, "joins a sequence of maps along a height or width")
        shape = analyzer.shape(node.outputs[0])
        kept = list(dims[0])
        if node.attributes.get_int("new_axis", 0):
            kept.insert(axis % len(shape), fixed(shape[axis]))
        else:
            kept[axis] = fixed(shape[axis])
        analyzer.dims[node.outputs[0]] = tuple(kept)


def _record(node: ir.Node, analyzer: Analyzer, tensors: list[Dims]) -> None:
    """Record the tensors of a sequence.

    The sequence itself gets the dimensions of its first tensor, so that the sampling grid passes
    through it.
    """
    analyzer.sequences[node.outputs[0]] = tensors
    analyzer.dims[node.outputs[0]] = tensors[0]
