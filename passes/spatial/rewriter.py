"""The graph while it becomes the pre-train graph, which the rules of operators write into.

A rule reads the pre-train sizes and parameters of its node here, and sets its attributes, its
constant inputs (`constants.demand`) or a Pad before it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.dimensions import Dim, pretrain_size
from graphscale.passes.spatial.geometry import Geometry
from graphscale.passes.spatial.mapping import Parameters
from graphscale.passes.spatial.shape_constants import ShapeConstants


class Rewriter:
    """Edits one analyzed model.

    Attributes:
        analysis: What was found in the target network.
        geometry: What was decided for the pre-train network.
        constants: The edits to constants that hold shapes.
    """

    def __init__(self, analysis: SpatialAnalysis, geometry: Geometry) -> None:
        self.analysis = analysis
        self.geometry = geometry
        self.constants = ShapeConstants(analysis.model, analysis.inferred)

    def size(self, dim: Dim) -> int:
        """Pre-train size of a dimension."""
        return pretrain_size(dim, self.geometry.sizes)

    def shape(self, value: ir.Value) -> list[int]:
        """Pre-train shape of a tensor."""
        return self.geometry.shape(self.analysis.of(value))

    def parameters(self, node: ir.Node) -> dict[int, Parameters]:
        """Pre-train parameters of the node's mappings, by dimension."""
        return {
            mapping.dimension: self.geometry.parameters[mapping]
            for mapping in self.analysis.mappings.get(node, ())
        }

    def resizes(self, node: ir.Node) -> bool:
        """Whether the node maps a size, or covers a whole map, that follows the input."""
        return node in self.analysis.mappings or node in self.analysis.covering

    def set_ints(self, node: ir.Node, name: str, numbers: list[int], default: list[int]) -> None:
        """Set an attribute, leaving it out where it was left out and the default says the same."""
        if name in node.attributes or numbers != default:
            node.attributes[name] = ir.AttrInt64s(name, numbers)

    def add_initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """A new constant of this name, or of a similar one where it is taken."""
        return add_initializer(self.analysis.model, name, array)

    def insert_pad(self, node: ir.Node, pads: list[int]) -> None:
        """Put a Pad before the node's first input; negative numbers crop."""
        name = f"{node_name(node)}.crop"
        graph = self.analysis.model.graph
        inputs = [node.inputs[0]]
        old = self.analysis.model.opset_imports.get("", 1) < 11
        if not old:
            inputs.append(self.add_initializer(f"{name}.pads", np.asarray(pads, np.int64)))
        pad = ir.node("Pad", inputs, {"pads": pads} if old else {}, name=name)
        pad.outputs[0].name = name
        graph.insert_before(node, pad)
        node.replace_input_with(0, pad.outputs[0])
