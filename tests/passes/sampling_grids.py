"""Where a network's pixels stand in its image, computed from the finished graph alone.

The reference that plans are compared with: it reads no plan and shares no code with the passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import onnx
from onnx import helper, numpy_helper

Shapes = Mapping[str, tuple[int, ...]]
JOINS = {"Add", "Mul", "Concat"}
_WINDOWS = {"Conv", "MaxPool", "AveragePool"}
UNCHANGED = {
    *("Relu", "LeakyRelu", "HardSigmoid", "PRelu", "Sigmoid", "BatchNormalization"),
    *("InstanceNormalization", "Dropout", "Split"),
}


@dataclass(frozen=True)
class Line:
    """One dimension of a tensor: pixel i stands at origin + pitch · i of the input."""

    axis: int
    origin: Fraction
    pitch: Fraction


def offset(line: Line, size: int, whole: int) -> float:
    """How far the middle of a map of `size` pixels is off the middle of an image of `whole` pixels.

    In parts of the image.
    """
    middle = line.origin + line.pitch * Fraction(size - 1, 2) - Fraction(whole - 1, 2)
    return float(middle / whole)


def sampling_grids(model: onnx.ModelProto, shapes: Shapes, spatial: range) -> dict[str, dict]:
    """The lines of each tensor by dimension; `spatial` are the input's dimensions of pixels."""
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            numbers[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    lines = {
        model.graph.input[0].name: {
            dim: Line(axis, Fraction(0), Fraction(1)) for axis, dim in enumerate(spatial)
        }
    }
    for node in model.graph.node:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        given = lines.get(node.input[0], {}) if node.input else {}
        if node.op_type in JOINS:
            lines[node.output[0]] = _joined(node, lines, shapes)
        elif node.op_type in UNCHANGED:
            lines.update(dict.fromkeys(node.output, given))
        elif given:
            moved = _MOVES.get(node.op_type, _moved)(node, attributes, given, shapes, numbers)
            lines[node.output[0]] = moved
    return lines


def _joined(node: onnx.NodeProto, lines: dict, shapes: Shapes) -> dict[int, Line]:
    """Where the inputs' grids differ, the mean of them."""
    result = {}
    for dim, size in enumerate(shapes[node.output[0]]):
        found = [
            lines[name][dim]
            for name in node.input
            if dim in lines.get(name, {}) and shapes[name][dim] == size
        ]
        if found:
            result[dim] = Line(
                found[0].axis,
                sum(each.origin for each in found) / len(found),
                sum(each.pitch for each in found) / len(found),
            )
    return result


def _moved(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict[int, Line]:
    """Windows, one spatial dimension after the other; whatever else is there ends a grid."""
    if node.op_type not in {*_WINDOWS, "ConvTranspose", "SpaceToDepth"}:
        return {}
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    rank = len(after) - 2
    if "Conv" in node.op_type:
        kernel = shapes[node.input[1]][2:]
    else:
        kernel = attributes.get("kernel_shape", [1] * rank)
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    pads = attributes.get("pads", [0] * 2 * rank)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    result = {}
    for i in range(rank):
        if 2 + i not in given:
            continue
        line = given[2 + i]
        span = (kernel[i] - 1) * dilations[i] + 1
        begin = pads[i]
        if auto.startswith("SAME"):
            total = max(0, (after[2 + i] - 1) * strides[i] + span - before[2 + i])
            begin = (total + 1) // 2 if auto == "SAME_LOWER" else total // 2
        shift = Fraction(span - 1, 2) - begin
        if node.op_type == "ConvTranspose":
            pitch = line.pitch / strides[i]
            result[2 + i] = Line(line.axis, line.origin - pitch * shift, pitch)
        elif node.op_type == "SpaceToDepth":
            block = attributes["blocksize"]
            origin = line.origin + line.pitch * Fraction(block - 1, 2)
            result[2 + i] = Line(line.axis, origin, line.pitch * block)
        else:
            pitch = line.pitch * strides[i]
            result[2 + i] = Line(line.axis, line.origin + line.pitch * shift, pitch)
    return result


def _transposed(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict:
    return {dim: given[source] for dim, source in enumerate(attributes["perm"]) if source in given}


def _reshaped(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict:
    """Dimensions behind those that are regrouped stay what they are."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    kept = {}
    for back in range(1, min(len(before), len(after)) + 1):
        if before[-back] != after[-back]:
            break
        if len(before) - back in given:
            kept[len(after) - back] = given[len(before) - back]
    return kept


def _resized(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict:
    mode = attributes.get("coordinate_transformation_mode", b"").decode()
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    old = node.op_type == "Upsample" or len(node.input) == 2  # Resize of opset 10
    result = {}
    for dim, line in given.items():
        ratio = Fraction(before[dim], after[dim])
        if before[dim] == 1:  # one pixel's parts stand around its middle, whatever the mode
            shift = ratio / 2 - Fraction(1, 2)
        elif mode == "align_corners":
            ratio = Fraction(before[dim] - 1, max(1, after[dim] - 1))
            shift = Fraction(0)
        elif mode == "asymmetric" or old:
            shift = Fraction(0)
        else:
            shift = ratio / 2 - Fraction(1, 2)
        result[dim] = Line(line.axis, line.origin + line.pitch * shift, line.pitch * ratio)
    return result


def _sliced(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict:
    starts = attributes.get("starts") or numbers[node.input[1]].tolist()
    axes = attributes.get("axes") or numbers[node.input[3]].tolist()
    result = dict(given)
    for start, dim in zip(starts, axes, strict=True):
        if dim in given:
            line = given[dim]
            start += shapes[node.input[0]][dim] * (start < 0)
            result[dim] = Line(line.axis, line.origin + line.pitch * start, line.pitch)
    return result


def _padded(node, attributes: dict, given: dict, shapes: Shapes, numbers: dict) -> dict:
    pads = attributes.get("pads") or numbers[node.input[1]].tolist()
    return {
        dim: Line(line.axis, line.origin - line.pitch * pads[dim], line.pitch)
        for dim, line in given.items()
    }


_MOVES = {
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Resize": _resized,
    "Upsample": _resized,
    "Slice": _sliced,
    "Pad": _padded,
}
