"""Follow heights and widths through the graph: which extents are equal, and what links them.

One entry in a table per ONNX operator. An operator that is in no table passes as element-wise where
its output has its first input's shape, and is an error where extents go in and none is known to
come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from graphscale.errors import GraphScaleError
from graphscale.passes.extents import (
    Atom,
    Dim,
    Dims,
    Extent,
    SpatialWeight,
    fixed,
    moves,
    regroup,
    single_extent,
    target_size,
    tie_dims,
)
from graphscale.passes.links import Blocks, Border, Crop, Link, Resampled, Transposed, Window
from graphscale.passes.measure_extents import Measured, graph_inputs
from graphscale.passes.parameters import dims_at_holder, holder

CONVOLUTIONS = ("Conv", "FFTConv", "FusedConv", "ConvTranspose")


@dataclass
class Traced:
    """What the graph says about its extents.

    Attributes:
        dims: Each tensor's dimensions.
        links: Every link in topological order, per node.
        covering: Nodes (convolution, pooling) whose window covers the whole map, with the extents.
        weights: Weights that hold extents.
    """

    model: ir.Model
    measured: Measured
    dims: dict[ir.Value, Dims] = field(default_factory=dict)
    links: dict[ir.Node, list[Link]] = field(default_factory=dict)
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


def trace(model: ir.Model, measured: Measured) -> Traced:
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
        _TABLE.get(node.op_type, _same_shape)(node, traced)
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
    moved = [0, rank - 1, *range(1, rank - 1)]
    if readers and all(
        node.op_type == "Transpose" and node.attributes.get_ints("perm", []) == moved
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


def _unfollowed(node: ir.Node, why: str) -> GraphScaleError:
    name = node.name or node.outputs[0].name
    return GraphScaleError(
        f"node {name!r} ({node.op_type}) {why}, which graphscale cannot rescale; "
        "cut the model before it or replace the node"
    )


# --- operators that keep the dimensions ---------------------------------------------------------


def _same_shape(node: ir.Node, traced: Traced) -> None:
    source = node.inputs[0] if node.inputs else None
    for output in node.outputs:
        if not output.name or output not in traced.measured.shapes:
            continue
        shape = traced.shape(output)
        if source is not None and shape == traced.shape(source):
            traced.dims[output] = traced.of(source)
        elif any(moves(dim) for value in node.inputs if value for dim in traced.of(value)):
            if len(shape) > 1 and all(size > 1 for size in shape[2:]):
                raise _unfollowed(node, "changes the shape of feature maps in an unknown way")
            traced.dims[output] = tuple(fixed(size) for size in shape)


def _normalize_trailing(node: ir.Node, traced: Traced) -> None:
    """Normalisation whose scale and bias have the trailing dimensions of the input."""
    _same_shape(node, traced)
    for value in node.inputs[1:]:
        if value is not None:
            _match_table(node, traced, value, traced.of(node.inputs[0]))


def _elementwise(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs[:1]
    shape = traced.shape(output)
    result: list[Dim] = []
    inputs = [value for value in node.inputs if value is not None]
    for position, size in enumerate(shape):
        dim: Dim | None = None
        for value in inputs:
            dims = traced.of(value)
            at = position - len(shape) + len(dims)
            if at < 0 or target_size(dims[at]) != size:
                continue
            if dim is None or (moves(dims[at]) and not moves(dim)):
                dim = dims[at]
        result.append(dim if dim is not None else fixed(size))
    for value in inputs:
        dims = traced.of(value)
        aligned = tuple(result[len(shape) - len(dims) :])
        if holder(value) is not None:
            _match_table(node, traced, value, aligned)
            continue
        for mine, theirs in zip(dims, aligned, strict=True):
            if mine == theirs or not mine:
                continue
            known = value in traced.measured.constants  # follows from shapes by itself
            if not tie_dims(theirs, mine) and not known:
                raise _unfollowed(node, "combines maps whose extents have different origins")
    traced.dims[output] = tuple(result)


def _match_table(node: ir.Node, traced: Traced, value: ir.Value, aligned: Dims) -> None:
    """Record a weight that is added to, or scales, single positions of a map."""
    shape = traced.shape(value)
    aligned = aligned[len(aligned) - len(shape) :] if shape else ()
    if len(aligned) != len(shape) or holder(value) is None:
        return
    dims = tuple(
        dim if size > 1 and target_size(dim) == size else fixed(size)
        for dim, size in zip(aligned, shape, strict=True)
    )
    if any(moves(dim) for dim in dims):
        _add_weight(node, traced, value, dims, summed=False)


def _add_weight(node: ir.Node, traced: Traced, value: ir.Value, dims: Dims, summed: bool) -> None:
    held = holder(value)
    if held is None:
        return
    dims = dims_at_holder(value, dims, traced.measured.constants)
    traced.weights.append(SpatialWeight(held, dims, summed, node))
    for dim in dims:
        for atom in dim:
            if atom.extent is not None:
                atom.extent.root.anchored = True
                atom.extent.root.interface |= summed


# --- operators that rearrange -------------------------------------------------------------------


def _transpose(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    order = node.attributes.get_ints("perm", list(range(len(dims)))[::-1])
    traced.dims[node.outputs[0]] = tuple(dims[axis] for axis in order)


def _reshape(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = regroup(traced.of(node.inputs[0]), traced.shape(output))
    if dims is None:
        if any(moves(dim) for dim in traced.of(node.inputs[0])):
            raise _unfollowed(node, "cuts a height or width into pieces")
        dims = tuple(fixed(size) for size in traced.shape(output))
    traced.dims[output] = dims


def _expand(node: ir.Node, traced: Traced) -> None:
    """Expand and Tile: dimensions of one pixel are repeated."""
    (output,) = node.outputs
    dims = traced.of(node.inputs[0])
    shape = traced.shape(output)
    dims = (*(fixed(1) for _ in range(len(shape) - len(dims))), *dims)
    result = []
    for position, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if target_size(dim) == size:
            result.append(dim)
        elif moves(dim):
            raise _unfollowed(node, "repeats a height or width")
        elif position >= 2 and len(shape) >= 3:
            # Spread over a map whose size is known only where it meets another.
            extent = Extent(position - 2, size)
            numbers = Resampled(size, 1, "asymmetric")
            traced.links.setdefault(node, []).append(
                Link(node, position - 2, position, None, extent, numbers)
            )
            result.append((Atom(size, extent),))
        else:
            result.append(fixed(size))
    traced.dims[output] = tuple(result)


def _concat(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    shape = traced.shape(output)
    axis = node.attributes.get_int("axis", 1) % len(shape)
    inputs = [traced.of(value) for value in node.inputs]
    result = list(max(inputs, key=lambda dims: sum(moves(dim) for dim in dims)))
    for dims in inputs:
        for position, dim in enumerate(dims):
            if position != axis and not tie_dims(result[position], dim):
                raise _unfollowed(node, "joins maps whose extents have different origins")
    parts = tuple(dims[axis] for dims in inputs)
    if any(moves(part) for part in parts):
        result[axis] = (Atom(shape[axis], parts=parts),)
    else:
        result[axis] = fixed(shape[axis])
    traced.dims[output] = tuple(result)


def _split(node: ir.Node, traced: Traced) -> None:
    dims = list(traced.of(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if moves(dims[axis]):
        parts = dims[axis][0].parts if len(dims[axis]) == 1 else ()
        sizes = [traced.shape(output)[axis] for output in node.outputs]
        if [target_size(part) for part in parts] != sizes:
            raise _unfollowed(node, "splits a height or width")
        pieces = list(parts)
    else:
        pieces = [fixed(traced.shape(output)[axis]) for output in node.outputs]
    for output, piece in zip(node.outputs, pieces, strict=True):
        traced.dims[output] = (*dims[:axis], piece, *dims[axis + 1 :])


def _gather(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if moves(dims[axis]):
        raise _unfollowed(node, "picks single rows or columns of a map")
    indices = tuple(fixed(size) for size in traced.shape(node.inputs[1]))
    traced.dims[node.outputs[0]] = (*dims[:axis], *indices, *dims[axis + 1 :])


def _reduce(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs[:1]
    dims = traced.of(node.inputs[0])
    shape = traced.shape(output)
    if len(shape) == len(dims):
        result = [dim if target_size(dim) == size else () for dim, size in zip(dims, shape)]
    else:
        axes = traced.constant(node, 1, "axes") or [node.attributes.get_int("axis", 0)]
        axes = [axis % len(dims) for axis in axes]
        kept = [dim for position, dim in enumerate(dims) if position not in axes]
        result = kept if len(kept) == len(shape) else [fixed(size) for size in shape]
    for each in node.outputs:
        traced.dims[each] = tuple(result)


def _global_pool(node: ir.Node, traced: Traced) -> None:
    dims = traced.of(node.inputs[0])
    traced.dims[node.outputs[0]] = (*dims[:2], *(() for _ in dims[2:]))


# --- products -----------------------------------------------------------------------------------


def _matmul(node: ir.Node, traced: Traced) -> None:
    first, second = node.inputs[:2]
    one, other = traced.of(first), traced.of(second)
    if len(one) < 2 or len(other) < 2:
        raise _unfollowed(node, "multiplies by a vector")
    _contract(node, traced, (first, one, len(one) - 1), (second, other, len(other) - 2))
    batch = _broadcast(one[:-2], other[:-2])
    traced.dims[node.outputs[0]] = (*batch, one[-2], other[-1])


def _gemm(node: ir.Node, traced: Traced) -> None:
    first, second = node.inputs[:2]
    one, other = traced.of(first), traced.of(second)
    row, column = (1, 0) if node.attributes.get_int("transA", 0) else (0, 1)
    inner, outer = (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
    _contract(node, traced, (first, one, column), (second, other, inner))
    traced.dims[node.outputs[0]] = (one[row], other[outer])


def _contract(node: ir.Node, traced: Traced, first, second) -> None:
    """Sum over a dimension of two tensors: they are tied, or one is an interface's weight."""
    (left, left_dims, i), (right, right_dims, j) = first, second
    if not moves(left_dims[i]) and not moves(right_dims[j]):
        return
    for weight, dims, position, dim in (
        (right, right_dims, j, left_dims[i]),
        (left, left_dims, i, right_dims[j]),
    ):
        if holder(weight) is not None:
            dims = (*dims[:position], dim, *dims[position + 1 :])
            _add_weight(node, traced, weight, dims, summed=True)
            return
    if not tie_dims(left_dims[i], right_dims[j]):
        raise _unfollowed(node, "sums over extents of different origins")


def _broadcast(first: Dims, second: Dims) -> Dims:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    shorter = (*(() for _ in range(len(longer) - len(shorter))), *shorter)
    for one, other in zip(longer, shorter):
        if one and other:
            tie_dims(one, other)
    return tuple(one or other for one, other in zip(longer, shorter))


def _einsum(node: ir.Node, traced: Traced) -> None:
    equation = node.attributes["equation"].value.replace(" ", "")
    terms, _, result = equation.partition("->")
    if "..." in equation or not result:
        if any(moves(dim) for value in node.inputs for dim in traced.of(value)):
            raise _unfollowed(node, f"has the equation {equation!r}")
        return
    letters: dict[str, Dim] = {}
    operands = list(zip(terms.split(","), node.inputs, strict=True))
    for term, value in operands:
        if holder(value) is None:
            for letter, dim in zip(term, traced.of(value), strict=True):
                tie_dims(letters.setdefault(letter, dim), dim)
    for term, value in operands:
        if holder(value) is not None:
            dims = tuple(
                letters.setdefault(letter, dim) for letter, dim in zip(term, traced.of(value))
            )
            summed = any(moves(letters[x]) and x not in result for x in term)
            if any(moves(dim) for dim in dims):
                _add_weight(node, traced, value, dims, summed)
    traced.dims[node.outputs[0]] = tuple(letters[letter] for letter in result)


# --- operators that link extents ----------------------------------------------------------------

_Numbers = Callable[[int, int, int], object]


def _link(node: ir.Node, traced: Traced, channels: Dim, numbers: _Numbers) -> None:
    """Link each spatial dimension; `numbers` gives (position, input, output size) -> numbers."""
    (output,) = node.outputs[:1]
    dims = traced.of(node.inputs[0])
    shape = traced.shape(output)
    result: list[Dim] = [dims[0], channels]
    for position, (dim, size) in enumerate(zip(dims[2:], shape[2:], strict=True)):
        result.append(_link_dim(node, traced, dim, position, size, numbers))
    for each in node.outputs:
        traced.dims[each] = tuple(result)


def _link_dim(
    node: ir.Node, traced: Traced, dim: Dim, position: int, size: int, numbers: _Numbers
) -> Dim:
    before = target_size(dim)
    found = numbers(position, before, size)
    if found is None:
        return dim
    extent = single_extent(dim)
    if extent is None and moves(dim):
        if isinstance(found, Window) and found == Window(1, 1, 1, 0, 0, found.ceil_mode):
            return dim  # one tap at stride one changes no extent
        raise _unfollowed(node, "slides over flattened maps")
    if extent is None:
        if not isinstance(found, Resampled) or before != 1 or size == 1:
            return fixed(size)
        axis = position
    else:
        axis = extent.axis
    if isinstance(found, Window) and size == 1 and _covers(node, found, before):
        traced.covering.setdefault(node, {})[position] = extent
        extent.anchored = True
        extent.interface |= node.op_type in CONVOLUTIONS
        return ()
    result = Extent(axis, size, anchored=size == 1)
    traced.links.setdefault(node, []).append(Link(node, axis, position, extent, result, found))
    return (Atom(size, result),) if size > 1 else ()


def _covers(node: ir.Node, window: Window, extent: int) -> bool:
    """Whether one window takes in the whole map: a classifier, or an average over everything."""
    if window.dilation > 1 or window.span < extent:
        return False
    exact = window.span == extent and window.begin == window.end == 0
    return exact or node.op_type not in CONVOLUTIONS


def _window_attributes(node: ir.Node, traced: Traced, kernel: list[int]) -> _Numbers:
    rank = len(kernel)
    strides = node.attributes.get_ints("strides", [1] * rank)
    dilations = node.attributes.get_ints("dilations", [1] * rank)
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    ceil_mode = bool(node.attributes.get_int("ceil_mode", 0))

    def numbers(position: int, before: int, size: int) -> Window:
        begin, end = pads[position], pads[position + rank]
        span = (kernel[position] - 1) * dilations[position] + 1
        if auto.startswith("SAME"):
            total = max(0, (size - 1) * strides[position] + span - before)
            begin = (total + (auto == "SAME_LOWER")) // 2
            end = total - begin
        elif auto == "VALID":
            begin = end = 0
        return Window(
            kernel[position], strides[position], dilations[position], begin, end, ceil_mode
        )

    return numbers


def _conv(node: ir.Node, traced: Traced) -> None:
    weight = traced.shape(node.inputs[1])
    _link(node, traced, fixed(weight[0]), _window_attributes(node, traced, list(weight[2:])))


def _pool(node: ir.Node, traced: Traced) -> None:
    kernel = list(node.attributes.get_ints("kernel_shape", []))
    channels = traced.of(node.inputs[0])[1]
    _link(node, traced, channels, _window_attributes(node, traced, kernel))


def _conv_transpose(node: ir.Node, traced: Traced) -> None:
    weight = traced.shape(node.inputs[1])
    rank = len(weight) - 2
    strides = node.attributes.get_ints("strides", [1] * rank)
    dilations = node.attributes.get_ints("dilations", [1] * rank)
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    extra = node.attributes.get_ints("output_padding", [0] * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    computed = auto.startswith("SAME") or "output_shape" in node.attributes

    def numbers(position: int, before: int, size: int) -> Transposed:
        kernel, stride = weight[2 + position], strides[position]
        span = (kernel - 1) * dilations[position] + 1
        begin, end = pads[position], pads[position + rank]
        if computed:
            total = stride * (before - 1) + extra[position] + span - size
            begin = total // 2 if auto != "SAME_UPPER" else total - total // 2
            end = total - begin
        return Transposed(kernel, stride, dilations[position], begin, end, extra[position])

    channels = fixed(traced.shape(node.outputs[0])[1])
    _link(node, traced, channels, numbers)


def _resize(node: ir.Node, traced: Traced) -> None:
    old = node.op_type == "Upsample" or node.version == 10
    mode = node.attributes.get_string(
        "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
    )
    if mode == "tf_crop_and_resize":
        raise _unfollowed(node, "crops while it resizes (tf_crop_and_resize)")
    (output,) = node.outputs
    result = []
    for dim, size in zip(traced.of(node.inputs[0]), traced.shape(output), strict=True):
        before = target_size(dim)
        if before == size:
            result.append(dim)
            continue
        position = len(result)
        result.append(
            _link_dim(node, traced, dim, position, size, lambda _, b, s: Resampled(s, b, mode))
            if position
            else fixed(size)
        )
    traced.dims[output] = tuple(result)


def _slice(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = list(traced.of(node.inputs[0]))
    starts, ends = traced.constant(node, 1, "starts"), traced.constant(node, 2, "ends")
    axes = traced.constant(node, 3, "axes") or list(range(len(starts or [])))
    steps = traced.constant(node, 4, "steps") or [1] * len(axes)
    if starts is None or ends is None:
        if any(map(moves, dims)):
            raise _unfollowed(node, "cuts at places that depend on the data")
        axes = []
    for index, axis in enumerate(axes):
        axis %= len(dims)
        size = traced.shape(output)[axis]
        before = target_size(dims[axis])
        if size == before and steps[index] == 1:
            continue
        if not moves(dims[axis]):
            dims[axis] = fixed(size)
            continue
        if steps[index] < 1:
            raise _unfollowed(node, "reverses a height or width")
        start, stop = (
            min(max(x + before * (x < 0), 0), before) for x in (starts[index], ends[index])
        )
        numbers = Crop(start, stop, steps[index])
        dims[axis] = _link_dim(node, traced, dims[axis], axis, size, lambda *_: numbers)  # noqa: B023
    traced.dims[output] = tuple(dims)


def _pad(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = list(traced.of(node.inputs[0]))
    pads = traced.constant(node, 1, "pads")
    axes = traced.constant(node, 3, "axes") or list(range(len(dims)))
    if pads is None:
        raise _unfollowed(node, "pads by numbers that depend on the data")
    for index, axis in enumerate(axes):
        axis %= len(dims)
        begin, end = pads[index], pads[index + len(axes)]
        size = traced.shape(output)[axis]
        if begin == end == 0:
            continue
        if not moves(dims[axis]):
            dims[axis] = fixed(size)
            continue
        numbers = Border(begin, end)
        dims[axis] = _link_dim(node, traced, dims[axis], axis, size, lambda *_: numbers)  # noqa: B023
    traced.dims[output] = tuple(dims)


def _blocks(node: ir.Node, traced: Traced) -> None:
    size = node.attributes.get_int("blocksize", 1)
    down, up = (size, 1) if node.op_type == "SpaceToDepth" else (1, size)
    channels = fixed(traced.shape(node.outputs[0])[1])
    _link(node, traced, channels, lambda *_: Blocks(down, up))


_TABLE: dict[str, Callable[[ir.Node, Traced], None]] = {
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
        _elementwise,
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
        _reduce,
    ),
    **dict.fromkeys(CONVOLUTIONS[:3], _conv),
    **dict.fromkeys(["MaxPool", "AveragePool", "LpPool"], _pool),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _global_pool),
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], _reshape),
    **dict.fromkeys(["Expand", "Tile"], _expand),
    **dict.fromkeys(["Resize", "Upsample"], _resize),
    **dict.fromkeys(["SpaceToDepth", "DepthToSpace"], _blocks),
    **dict.fromkeys(["LayerNormalization", "RMSNormalization"], _normalize_trailing),
    "ConvTranspose": _conv_transpose,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Gather": _gather,
    "Slice": _slice,
    "Pad": _pad,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
