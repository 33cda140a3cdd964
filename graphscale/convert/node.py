"""The view of an ONNX node that a translation gets: attributes, and ways to extend the program.

In: an onnx-ir node, the tracer that records the torch program, and how `load` was called. The
importer makes one `NodeView` per ONNX node and hands it to the operator's translation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import onnx_ir as ir
import torch

from graphscale.convert.tensors import to_torch
from graphscale.core.errors import GraphScaleError

if TYPE_CHECKING:
    from graphscale.convert.tracing import Tracer


class NodeView:
    """One ONNX node while it is translated.

    Args:
        node: The node in the graph.
        opset: Version of the node's operator set.
        tracer: Records the torch program.
        source: How error messages name the model.
        dtype: The floating-point type that `load` was asked for, or None.
        import_graph: Imports a subgraph (a branch of an If) and returns its results.
    """

    def __init__(
        self,
        node: ir.Node,
        opset: int,
        tracer: Tracer,
        source: str,
        dtype: torch.dtype | None,
        import_graph: Callable[[ir.Graph], list],
    ) -> None:
        self.op_type = node.op_type
        self.opset = opset
        self._node = node
        self._tracer = tracer
        self._source = source
        self._dtype = dtype
        self._import_graph = import_graph

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute: int, float, str, list, or torch tensor; `default` if absent."""
        attribute = self._node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.type == ir.AttributeType.TENSOR:
            return to_torch(attribute.value)
        if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
            return list(attribute.value)
        return attribute.value

    def metadata(self, key: str) -> str | None:
        """An entry of the node's metadata, None if there is none."""
        return self._node.metadata_props.get(key)

    def working_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type to compute in: `load`'s `dtype` in place of any floating-point type."""
        return self._dtype if self._dtype is not None and dtype.is_floating_point else dtype

    def uses_output(self, index: int) -> bool:
        """Whether anything reads output `index`."""
        if index >= len(self._node.outputs):
            return False
        value = self._node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def only_read_by(self, op_type: str) -> bool:
        """Whether nothing reads the outputs but operators of this type."""
        return not any(
            value.is_graph_output() or any(use.node.op_type != op_type for use in value.uses())
            for value in self._node.outputs
        )

    @property
    def output_count(self) -> int:
        """Number of outputs that the node names."""
        return len(self._node.outputs)

    def module(self, module: torch.nn.Module) -> Callable:
        """A function that calls `module` in the program, for what differs in train() and eval().

        Its result must have the shape and type of its first argument.
        """
        return self._tracer.module(module, self._node.op_type)

    def create(self, function: Callable, *args, **kwargs) -> Any:
        """A new tensor `function(*args)`, such as torch.full, whose arguments may be symbolic.

        The program creates it on the device of the network's input.
        """
        return self._tracer.create(function, args, kwargs)

    def branch(self, name: str) -> list:
        """Results of the subgraph in attribute `name`, whose nodes become part of the program."""
        return self._import_graph(self._node.attributes[name].value)

    def fail(self, reason: str) -> NoReturn:
        """Refuse the node for `reason`.

        Raises:
            GraphScaleError: always; names the file and the node.
        """
        raise GraphScaleError(
            f"{self._source}: node {self._node.name!r} ({self.op_type}) cannot be turned into "
            f"torch: {reason}"
        )
