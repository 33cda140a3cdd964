"""Write the solved geometry into the graph: attributes, shape constants and declared shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.infer_shapes import InferredShapes, infer_shapes
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.shrink.choose_kernels import node_name
from graphscale.passes.shrink.shape_constants import ShapeConstants
from graphscale.passes.spatial.dimensions import Extent, moves, pretrain_size
from graphscale.passes.spatial.links import Window
from graphscale.passes.spatial.traced import CONVOLUTIONS, Traced


def shrink_graph(traced: Traced, solved: Mapping[Extent, int]) -> list[str]:
    """Turn the traced model's graph into the pre-train graph; the weights are another pass's.

    Returns the names of the shape constants that changed.
    """
    constants = ShapeConstants(traced.model, traced.measured)
    for node in list(traced.model.graph):
        writer = _WRITERS.get(node.op_type)
        if writer is not None and any(output in traced.dims for output in node.outputs):
            writer(node, traced, solved, constants)
    for value, dims in traced.dims.items():
        if value.shape is not None and any(moves(dim) for dim in dims):
            value.shape = ir.Shape(
                pretrain_size(dim, solved) if moves(dim) else old
                for dim, old in zip(dims, value.shape, strict=True)
            )
    return constants.changed


def check_shapes(
    traced: Traced, solved: Mapping[Extent, int], input_shapes: Mapping
) -> InferredShapes:
    """Measure the finished pre-train network; every tensor must have the planned shape.

    Raises:
        GraphScaleError: a constant was overlooked that holds a shape; names the tensor.
    """
    measured = infer_shapes(traced.model, input_shapes)
    for value, dims in traced.dims.items():
        if weight_source(value) is not None:
            continue
        planned = tuple(pretrain_size(dim, solved) for dim in dims)
        found = measured.shapes.get(value, planned)
        if found != planned:
            node = value.producer()
            raise GraphScaleError(
                f"node {node_name(node) if node else value.name!r}: its output would be "
                f"{list(found)} instead of {list(planned)}; a constant that holds a shape could "
                "not be followed, export the model with constant folding"
            )
    return measured


def _set_ints(node: ir.Node, name: str, numbers: list[int], default: list[int]) -> None:
    """Set an attribute, leaving it out where it was left out and the default says the same."""
    if name in node.attributes or numbers != default:
        node.attributes[name] = ir.AttrInt64s(name, numbers)


def _window(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    links = {link.position: link.pretrain for link in traced.links.get(node, [])}
    covered = traced.covering.get(node, {})
    if not links and not covered:
        return
    rank = len(traced.shape(node.inputs[0])) - 2
    convolution = node.op_type in CONVOLUTIONS
    if convolution:
        kernel = list(traced.shape(node.inputs[1])[2:])
    else:
        kernel = list(node.attributes.get_ints("kernel_shape", []))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    dilations = list(node.attributes.get_ints("dilations", [1] * rank))
    extra = list(node.attributes.get_ints("output_padding", [0] * rank))
    crop = [0] * 2 * rank
    for position, numbers in traced.still.get(node, {}).items():
        # Where auto_pad decided before, the numbers are written out.
        pads[position], pads[position + rank] = numbers.begin, numbers.end
    for position in range(rank):
        if position in covered:
            extent = covered[position].root
            kernel[position] += solved[extent] - extent.target
        numbers = links.get(position)
        if numbers is None:
            continue
        kernel[position] = numbers.kernel
        dilations[position] = numbers.dilation
        pads[position], pads[position + rank] = max(numbers.begin, 0), max(numbers.end, 0)
        crop[position], crop[position + rank] = min(numbers.begin, 0), min(numbers.end, 0)
        if not isinstance(numbers, Window):
            extra[position] = numbers.output_padding
    if "kernel_shape" in node.attributes:
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    node.attributes.pop("algorithm", None)  # of FFTConv, measured at the target's sizes
    if "auto_pad" in node.attributes:
        node.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
    _set_ints(node, "pads", pads, [0] * 2 * rank)
    _set_ints(node, "dilations", dilations, [1] * rank)
    if node.op_type == "ConvTranspose":
        node.attributes.pop("output_shape", None)
        _set_ints(node, "output_padding", extra, [0] * rank)
    if any(crop):
        _insert_crop(node, traced, crop)


def _insert_crop(node: ir.Node, traced: Traced, crop: list[int]) -> None:
    """Negative padding, which no window operator can express, as a Pad before it."""
    value = node.inputs[0]
    rank = len(crop) // 2
    pads = [0, 0, *crop[:rank], 0, 0, *crop[rank:]]
    name = f"{node_name(node)}.crop"
    graph = traced.model.graph
    inputs = [value]
    attributes = {"pads": pads} if traced.model.opset_imports.get("", 1) < 11 else {}
    if not attributes:
        array = np.asarray(pads, np.int64)
        inputs.append(add_initializer(traced.model, f"{name}.pads", array))
    pad = ir.node("Pad", inputs, attributes, name=name)
    pad.outputs[0].name = name
    graph.insert_before(node, pad)
    node.replace_input_with(0, pad.outputs[0])


def _reshape(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    dims = traced.of(node.outputs[0])
    if len(node.inputs) < 2 or not any(moves(dim) for dim in dims):
        return
    current = traced.measured.constants.get(node.inputs[1])
    if current is None:
        return
    wanted = [
        pretrain_size(dim, solved) if number > 0 and moves(dim) else number
        for number, dim in zip(current.tolist(), dims, strict=True)
    ]
    constants.demand(node, 1, np.asarray(wanted))


def _expand(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    dims = traced.of(node.outputs[0])
    current = traced.measured.constants.get(node.inputs[1])
    if current is None or not any(moves(dim) for dim in dims):
        return
    numbers = current.tolist()
    aligned = dims[len(dims) - len(numbers) :]
    wanted = [
        pretrain_size(dim, solved) if number > 1 and moves(dim) else number
        for number, dim in zip(numbers, aligned, strict=True)
    ]
    constants.demand(node, 1, np.asarray(wanted))


def _resize(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    before, after = traced.of(node.inputs[0]), traced.of(node.outputs[0])
    sizes = [
        (pretrain_size(old, solved), pretrain_size(new, solved)) for old, new in zip(before, after)
    ]
    axes = node.attributes.get_ints("axes", list(range(len(sizes))))
    sizes = [sizes[axis] for axis in axes]
    if "scales" in node.attributes:
        scales = np.asarray(node.attributes["scales"].value, np.float32)
        node.attributes["scales"] = ir.AttrFloat32s("scales", _scales(scales, sizes).tolist())
        return
    at = 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2
    scales = node.inputs[at] if at < len(node.inputs) else None
    current = traced.measured.constants.get(scales)
    if current is not None and current.size:
        constants.demand(node, at, _scales(current, sizes), freeze=True)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        wanted = np.asarray([size for _, size in sizes])
        constants.demand(node, 3, wanted)
        found = constants.computed(
            node.inputs[3], lambda value: [pretrain_size(dim, solved) for dim in traced.of(value)]
        )
        if not np.array_equal(found, wanted):
            # Computed from the map's own shape, by a factor that is another now. Unlike sizes,
            # scales hold no batch size and can be constants.
            scales = _scales(np.zeros(len(sizes), np.float32), sizes)
            name = f"{node_name(node)}.scales"
            node.replace_input_with(2, add_initializer(traced.model, name, scales))
            node.replace_input_with(3, None)


def _scales(scales: np.ndarray, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Scales that take each size before to the size after, the old ones where they do."""
    result = scales.copy()
    for index, (before, after) in enumerate(sizes):
        if int(np.floor(before * float(scales[index]))) != after:
            scale = np.asarray(after / before, scales.dtype)
            while int(np.floor(before * float(scale))) < after:
                scale = np.nextafter(scale, np.asarray(np.inf, scales.dtype))
            result[index] = scale
    return result


def _slice(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    links = {link.position: link for link in traced.links.get(node, [])}
    if not links:
        return
    starts, ends = traced.constant(node, 1, "starts"), traced.constant(node, 2, "ends")
    axes = traced.constant(node, 3, "axes") or list(range(len(starts)))
    rank = len(traced.shape(node.inputs[0]))
    for index, axis in enumerate(axes):
        link = links.get(axis % rank)
        if link is None:
            continue
        extent = solved[link.source.root]
        numbers = link.pretrain
        if min(max(starts[index] + extent * (starts[index] < 0), 0), extent) != numbers.start:
            starts[index] = numbers.start
        if min(max(ends[index] + extent * (ends[index] < 0), 0), extent) != numbers.stop:
            ends[index] = numbers.stop
    for name, index, numbers in (("starts", 1, starts), ("ends", 2, ends)):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, numbers)
        else:
            constants.demand(node, index, np.asarray(numbers), freeze=True)


def _pad(node: ir.Node, traced: Traced, solved, constants: ShapeConstants) -> None:
    links = {link.position: link.pretrain for link in traced.links.get(node, [])}
    if not links:
        return
    pads = traced.constant(node, 1, "pads")
    rank = len(traced.shape(node.inputs[0]))
    axes = traced.constant(node, 3, "axes") or list(range(rank))
    for index, axis in enumerate(axes):
        numbers = links.get(axis % rank)
        if numbers is not None:
            pads[index], pads[index + len(axes)] = numbers.begin, numbers.end
    if "pads" in node.attributes:
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    else:
        constants.demand(node, 1, np.asarray(pads), freeze=True)


_WRITERS: dict[str, Callable] = {
    **dict.fromkeys([*CONVOLUTIONS, "MaxPool", "AveragePool", "LpPool"], _window),
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _expand,
    "Resize": _resize,
    "Upsample": _resize,
    "Slice": _slice,
    "Pad": _pad,
}
