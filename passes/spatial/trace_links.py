"""Tracing of operators that lead from one extent to another: windows, resizing, cuts, borders."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from graphscale.passes.spatial.dimensions import (
    Atom,
    Dim,
    Extent,
    fixed,
    moves,
    single_extent,
    target_size,
)
from graphscale.passes.spatial.links import (
    Blocks,
    Border,
    Crop,
    Link,
    Resampled,
    Transposed,
    Window,
)
from graphscale.passes.spatial.traced import CONVOLUTIONS, Traced, unfollowed

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
        raise unfollowed(node, "slides over flattened maps")
    traced.still.setdefault(node, {})[position] = found
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
    del traced.still[node][position]
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


def conv(node: ir.Node, traced: Traced) -> None:
    weight = traced.shape(node.inputs[1])
    _link(node, traced, fixed(weight[0]), _window_attributes(node, traced, list(weight[2:])))


def pool(node: ir.Node, traced: Traced) -> None:
    kernel = list(node.attributes.get_ints("kernel_shape", []))
    channels = traced.of(node.inputs[0])[1]
    _link(node, traced, channels, _window_attributes(node, traced, kernel))


def conv_transpose(node: ir.Node, traced: Traced) -> None:
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
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end = total - begin
        return Transposed(kernel, stride, dilations[position], begin, end, extra[position])

    channels = fixed(traced.shape(node.outputs[0])[1])
    _link(node, traced, channels, numbers)


def resize(node: ir.Node, traced: Traced) -> None:
    old = node.op_type == "Upsample" or traced.model.opset_imports.get("") == 10
    mode = node.attributes.get_string(
        "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
    )
    if mode == "tf_crop_and_resize":
        raise unfollowed(node, "crops while it resizes (tf_crop_and_resize)")
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


def slice_(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = list(traced.of(node.inputs[0]))
    starts, ends = traced.constant(node, 1, "starts"), traced.constant(node, 2, "ends")
    axes = traced.constant(node, 3, "axes") or list(range(len(starts or [])))
    steps = traced.constant(node, 4, "steps") or [1] * len(axes)
    if starts is None or ends is None:
        if any(map(moves, dims)):
            raise unfollowed(node, "cuts at places that depend on the data")
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
            raise unfollowed(node, "reverses a height or width")
        start, stop = (
            min(max(x + before * (x < 0), 0), before) for x in (starts[index], ends[index])
        )
        numbers = Crop(start, stop, steps[index])
        dims[axis] = _link_dim(node, traced, dims[axis], axis, size, lambda *_: numbers)  # noqa: B023
    traced.dims[output] = tuple(dims)


def pad(node: ir.Node, traced: Traced) -> None:
    (output,) = node.outputs
    dims = list(traced.of(node.inputs[0]))
    reflects = node.attributes.get_string("mode", "constant") == "reflect"
    pads = traced.constant(node, 1, "pads")
    axes = traced.constant(node, 3, "axes") or list(range(len(dims)))
    if pads is None:
        raise unfollowed(node, "pads by numbers that depend on the data")
    for index, axis in enumerate(axes):
        axis %= len(dims)
        begin, end = pads[index], pads[index + len(axes)]
        size = traced.shape(output)[axis]
        if begin == end == 0:
            continue
        if not moves(dims[axis]):
            dims[axis] = fixed(size)
            continue
        numbers = Border(begin, end, reflects)
        dims[axis] = _link_dim(node, traced, dims[axis], axis, size, lambda *_: numbers)  # noqa: B023
    traced.dims[output] = tuple(dims)


def blocks(node: ir.Node, traced: Traced) -> None:
    size = node.attributes.get_int("blocksize", 1)
    down, up = (size, 1) if node.op_type == "SpaceToDepth" else (1, size)
    channels = fixed(traced.shape(node.outputs[0])[1])
    _link(node, traced, channels, lambda *_: Blocks(down, up))
