"""Follow heights and widths through the graph: which extents are equal, and what links them.

One entry in a table per ONNX operator. An operator that is in no table passes as element-wise where
its output has its first input's shape, and is an error where extents go in and none is known to
come out.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.infer_shapes import InferredShapes
from graphscale.passes.spatial.dimensions import Atom, Dims, Extent, fixed
from graphscale.passes.spatial.trace_dims import (
    concat,
    elementwise,
    expand,
    gather,
    global_pool,
    locally_connected,
    normalize_trailing,
    pool_features,
    reduce,
    reshape,
    same_shape,
    split,
    transpose,
)
from graphscale.passes.spatial.trace_links import (
    blocks,
    conv,
    conv_transpose,
    pad,
    pool,
    resize,
    slice_,
)
from graphscale.passes.spatial.trace_products import einsum, gemm, matmul
from graphscale.passes.spatial.trace_sequences import (
    concat_from_sequence,
    sequence_at,
    sequence_construct,
    split_to_sequence,
)
from graphscale.passes.spatial.traced import CONVOLUTIONS, Traced

_TRACERS: dict[str, Callable[[ir.Node, Traced], None]] = {
    **dict.fromkeys(
        [
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Min",
            "Max",
            "Sum",
            "Mean",
            "Where",
            "PRelu",
            "And",
            "Or",
            "Xor",
            "Mod",
            "Equal",
            "Greater",
            "Less",
            "GreaterOrEqual",
            "LessOrEqual",
            "BitShift",
        ],
        elementwise,
    ),
    **dict.fromkeys(
        [
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
            "ArgMax",
            "ArgMin",
            "TopK",
        ],
        reduce,
    ),
    **dict.fromkeys(CONVOLUTIONS[:3], conv),
    **dict.fromkeys(["MaxPool", "AveragePool", "LpPool"], pool),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], global_pool),
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], reshape),
    **dict.fromkeys(["Expand", "Tile"], expand),
    **dict.fromkeys(["Resize", "Upsample"], resize),
    **dict.fromkeys(["SpaceToDepth", "DepthToSpace"], blocks),
    **dict.fromkeys(["LayerNormalization", "RMSNormalization"], normalize_trailing),
    **dict.fromkeys(["FeatureLPPooling", "Maxout"], pool_features),
    "LocallyConnected": locally_connected,
    "SplitToSequence": split_to_sequence,
    "SequenceConstruct": sequence_construct,
    "SequenceAt": sequence_at,
    "ConcatFromSequence": concat_from_sequence,
    "ConvTranspose": conv_transpose,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Gather": gather,
    "Slice": slice_,
    "Pad": pad,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
}


def trace(model: ir.Model, measured: InferredShapes) -> Traced:
    """Trace the extents of `model` from its inputs.

    Raises:
        GraphScaleError: an operator uses heights and widths in a way that cannot be followed; names
            the node.
    """
    traced = Traced(model, measured)
    for value in graph_inputs(model):
        traced.dims[value] = _input_dims(value, measured.shapes[value])
    for node in model.graph:
        if all(output in measured.constants for output in node.outputs if output.name):
            continue
        _TRACERS.get(node.op_type, same_shape)(node, traced)
    for value in model.graph.outputs:
        for dim in traced.of(value):
            for atom in dim:
                if atom.extent is not None:
                    atom.extent.root.anchored = True
    return traced


def spatial_positions(value: ir.Value, rank: int) -> range:
    """Positions of height, width … in a graph input of `rank` dimensions.

    Channels first, unless everything that reads the input moves its last dimension to the second.
    """
    readers = [usage.node for usage in value.uses()]
    moved = (0, rank - 1, *range(1, rank - 1))
    if readers and all(
        node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", [])) == moved
        for node in readers
    ):
        return range(1, rank - 1)
    return range(2, rank)


def _input_dims(value: ir.Value, shape: tuple[int, ...]) -> Dims:
    spatial = list(spatial_positions(value, len(shape)))
    return tuple(
        (Atom(size, Extent(spatial.index(position), size)),)
        if position in spatial and size > 1
        else fixed(size)
        for position, size in enumerate(shape)
    )
