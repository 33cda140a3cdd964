"""Definitions of graphscale's operators by ONNX's own: function bodies for other runtimes.

A runtime without graphscale's library computes a node of the domain `graphscale` by the function of
its name that the model brings. `Definition` is such a function for any opset version, `add_bodies`
gives a model those that it needs. Needs neither torch nor onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
import onnx_ir.convenience

DOMAIN = "graphscale"
VERSION = 1


@dataclass(frozen=True)
class Definition:
    """An operator by ONNX's own operators.

    Attributes:
        name: The operator's name, in CamelCase.
        body: In ONNX's text form; or a function that returns it for an opset version.
        defaults: Attributes with a default value, except lists, whose default ONNX cannot express.
    """

    name: str
    body: str | Callable[[int], str]
    defaults: Mapping[str, int | float | str] = field(default_factory=dict)

    def function(self, opset: int) -> onnx.FunctionProto:
        """The ONNX function for a model with this opset version."""
        header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}, "{DOMAIN}": {VERSION}]>\n'
        body = self.body(opset) if callable(self.body) else self.body
        return onnx.parser.parse_function(header + self.name + body)


def add_bodies(model: ir.Model, definition_of: Callable[[ir.Node], Definition | None]) -> None:
    """Add the function bodies of graphscale's operators that `model` uses, in place.

    Bodies that use further operators bring the bodies of those. Each node of such an operator gets
    all attributes, also those with default values: tools that replace nodes by bodies do not know
    the defaults of functions.

    Args:
        model: With an opset version of ONNX's own operators.
        definition_of: The definition of a node's operator; None to leave the node as it is.
    """
    opset = model.opset_imports[""]

    def complete(nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            definition = definition_of(node) if node.domain == DOMAIN else None
            if definition is None:
                continue
            for name, value in definition.defaults.items():
                if name not in node.attributes:
                    node.attributes[name] = ir.convenience.convert_attribute(name, value)
            if node.op_identifier() not in model.functions:
                function = ir.serde.deserialize_function(definition.function(opset))
                complete(function)  # first: some tools need a function before those that call it
                model.functions[function.identifier()] = function
            # ONNX's reference evaluator needs as many inputs as the function has, empty ones too.
            count = len(model.functions[node.op_identifier()].inputs)
            if len(node.inputs) < count:
                node.resize_inputs(count)

    complete(list(model.graph.all_nodes()))
