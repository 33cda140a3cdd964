"""Operators whose output has its inputs' heights and widths: activations, arithmetic.

The lists are explicit: only operators that keep every pixel in its place stand here. Any operator
that is in no list is refused where a height or width goes in.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import Dim, fixed, moves, target_size, tie_dims
from graphscale.passes.spatial.registry import Rule, register


@register(
    # Functions of one pixel.
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike"),
    *("Ceil", "Celu", "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg"),
    *("Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
    # Noise of a tensor's shape.
    *("Bernoulli", "RandomNormalLike", "RandomUniformLike"),
    # Quantization, whose scale is one number or one per channel.
    *("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"),
    # Along an axis, of whatever size it is.
    *("CumProd", "CumSum", "Hardmax", "LogSoftmax", "LpNormalization", "LRN", "Softmax", "Trilu"),
    "MeanVarianceNormalization",
)
@register("FastGelu", "Gelu", "QuickGelu", domain="com.microsoft")
@register("CrossMapNormalization", domain="graphscale")
class _SamePixels(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        analyzer.keep(node)


@register(
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Or"),
    *("Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
)
class Broadcast(Rule):
    """Operators on several tensors of equal sizes, or of one pixel where the others have more."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        (output,) = node.outputs
        shape = analyzer.shape(output)
        # Of the inputs' dimensions at a place, the output has one of its size, a moving one first.
        result: list[Dim] = []
        inputs = [value for value in node.inputs if value is not None]
        for position, size in enumerate(shape):
            dim: Dim | None = None
            for value in inputs:
                dims = analyzer.of(value)
                at = position - len(shape) + len(dims)
                if at < 0 or target_size(dims[at]) != size:
                    continue
                if dim is None or (moves(dims[at]) and not moves(dim)):
                    dim = dims[at]
            result.append(dim if dim is not None else fixed(size))
        for value in inputs:
            dims = analyzer.of(value)
            aligned = tuple(result[len(shape) - len(dims) :])
            if weight_source(value) is not None:
                analyzer.add_table(node, value, aligned)
                continue
            if analyzer.look_up(node, value, aligned):
                continue
            for mine, theirs in zip(dims, aligned, strict=True):
                if mine == theirs or not mine:
                    continue
                # A value that follows from shapes is computed anew in the pre-train network.
                known = value in analyzer.inferred.constants
                if not tie_dims(theirs, mine) and not known:
                    raise unfollowed(node, "combines maps whose sizes have different origins")
        analyzer.dims[output] = tuple(result)


@register("BatchNormalization", "GroupNormalization", "InstanceNormalization")
class _ChannelNormalization(Rule):
    """Each further input has one number per channel; behind a Flatten, channels are positions."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        analyzer.keep(node)
        channels = analyzer.of(node.inputs[0])[1]
        if not moves(channels):
            return
        for value in node.inputs[1:]:
            if weight_source(value) is None:
                raise unfollowed(node, "normalizes flattened maps by computed numbers")
            analyzer.add_table(node, value, (channels,))


@register("LayerNormalization", "RMSNormalization")
class _TrailingNormalization(Rule):
    """Scale and bias have the trailing dimensions of the input."""

    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        analyzer.keep(node)
        for value in node.inputs[1:]:
            if value is not None:
                analyzer.add_table(node, value, analyzer.of(node.inputs[0]))
