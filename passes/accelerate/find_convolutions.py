"""List the convolutions that FFTConv could compute, with all that their speed depends on.

In goes a model with its shapes; out come nodes, the `ConvolutionProblem` that each one solves, and
for unsuitable nodes the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod

import onnx_ir as ir

from graphscale.passes.graph.weight_source import tensor_of, weight_source

Shapes = Mapping[ir.Value, tuple[int, ...]]
FIRST_WITH_OVERRIDES = 4  # IR version; before, initializers had to be inputs and were constant


@dataclass(frozen=True)
class ConvolutionProblem:
    """A convolution of float32 numbers at one size.

    Attributes:
        x, weight: Shapes.
        pads: Beginnings, then ends.
        auto_pad, bias, dilations, group, strides: As ONNX Conv has them.
    """

    x: tuple[int, ...]
    weight: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    group: int = 1
    auto_pad: str = "NOTSET"
    bias: bool = False

    @property
    def attributes(self) -> dict[str, object]:
        """ONNX attributes."""
        attributes: dict[str, object] = {
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "group": self.group,
            "auto_pad": self.auto_pad,
        }
        if self.auto_pad == "NOTSET":
            attributes["pads"] = list(self.pads)
        return attributes

    @property
    def key(self) -> str:
        """One line that names the problem in a file of measurements."""
        return " ".join(f"{name}={_plain(value)}" for name, value in asdict(self).items())


def is_convolution(node: ir.Node) -> bool:
    """Whether a node is a Conv or FFTConv."""
    return (node.domain, node.op_type) in (("", "Conv"), ("graphscale", "FFTConv"))


def find_convolutions(model: ir.Model) -> list[ir.Node]:
    """The Conv and FFTConv nodes of a model's main graph, in its order."""
    return [node for node in model.graph if is_convolution(node)]


def find_hidden_convolutions(model: ir.Model) -> list[tuple[ir.Node, ir.Node]]:
    """Conv and FFTConv nodes inside branches and loops, each with the main graph's node."""
    found = []
    for outer in model.graph:
        for attribute in outer.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found += [
                    (node, outer) for node in attribute.value.all_nodes() if is_convolution(node)
                ]
    return found


def problem_of(node: ir.Node, shapes: Shapes) -> ConvolutionProblem:
    """The problem that a Conv or FFTConv node solves on tensors of these shapes."""
    x, weight = shapes[node.inputs[0]], shapes[node.inputs[1]]
    rank = len(weight) - 2
    return ConvolutionProblem(
        x=x,
        weight=weight,
        strides=tuple(node.attributes.get_ints("strides", [1] * rank)),
        dilations=tuple(node.attributes.get_ints("dilations", [1] * rank)),
        pads=tuple(node.attributes.get_ints("pads", [0] * 2 * rank)),
        group=node.attributes.get_int("group", 1),
        auto_pad=node.attributes.get_string("auto_pad", "NOTSET"),
        bias=len(node.inputs) > 2 and node.inputs[2] is not None,
    )


def unsuitable(node: ir.Node, shapes: Shapes, ir_version: int) -> str | None:
    """Why there is nothing to choose for a Conv or FFTConv node, or None."""
    held = weight_source(node.inputs[1])
    if held is None:
        return "its weight is computed while the network runs"
    if tensor_of(held).dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor_of(held).dtype.name}, not FLOAT"
    if held.is_graph_input() and ir_version >= FIRST_WITH_OVERRIDES:
        return "its weight is an input of the model, too"
    weight = shapes[node.inputs[1]]
    if len(weight) > 4:
        return "it has three spatial dimensions"
    if prod(weight[2:]) == 1:
        return "its kernel has one tap"
    if prod(shapes[node.outputs[0]]) == 0:
        return "it has no output at this size"
    return None


def _plain(value: object) -> object:
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else value
