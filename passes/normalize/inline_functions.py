"""Replace the calls of model-local functions by the functions' bodies.

Passes look at operators, and a function hides the operators that it is made of. graphscale's own
operators stay single nodes: the functions of that name are for runtimes without the library.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Mapping

import onnx
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.operator_definition import DOMAIN
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult

# Functions that call each other twice, ten deep, become a thousand times as many nodes as the file
# holds. A model that would exceed the larger of these limits is damaged or hostile, and refused.
_MAX_NODES = 100_000
_MAX_GROWTH = 50  # times the nodes that the file holds


class InlineFunctions(ir.passes.InPlacePass):
    """Inline every function, its calls of other functions included, in linear time.

    The result names the functions that were inlined, as 'domain.Name'. New nodes and values keep
    their names in the function, with a number appended where those are taken.

    Args:
        keep: (domain, name) of functions whose calls stay, besides graphscale's own operators.

    Raises:
        GraphScaleError: functions call each other in a circle, grow out of proportion, or are
            written for an operator set that differs from the model's; names the function.
    """

    def __init__(self, keep: Collection[tuple[str, str]] = ()) -> None:
        super().__init__()
        self._keep = keep

    def call(self, model: ir.Model) -> RewriteResult:
        """Inline in place."""
        source = model.meta.get("source", "the model")
        functions = {
            key: function
            for key, function in model.functions.items()
            if function.domain != DOMAIN and (function.domain, function.name) not in self._keep
        }
        if not functions:
            return RewriteResult.of(model, [])
        graphs = [
            model.graph,
            *(each.graph for key, each in model.functions.items() if key not in functions),
        ]
        _check_size(graphs, functions, source)
        inliner = _Inliner(model, functions, source)
        for graph in graphs:
            inliner.inline(graph)
        for key in functions:
            del model.functions[key]
        return RewriteResult.of(model, [f"{domain}.{name}" for domain, name, _ in functions])


def _check_size(
    graphs: list[ir.Graph], functions: Mapping[ir.OperatorIdentifier, ir.Function], source: str
) -> None:
    """Raise where inlining would not end or would grow the model out of proportion."""
    calls = {
        key: [each.op_identifier() for each in function.all_nodes()]
        for key, function in functions.items()
    }
    callees = {key: [each for each in ops if each in functions] for key, ops in calls.items()}
    try:
        order = list(graphlib.TopologicalSorter(callees).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(f"{domain}.{name}" for domain, name, _ in error.args[1])
        raise GraphScaleError(
            f"{source}: its functions call each other in a circle ({circle}); export it again"
        ) from None
    # Callees come first, so that one walk finds how many nodes each call becomes.
    sizes: dict[ir.OperatorIdentifier, int] = {}
    for key in order:
        sizes[key] = sum(sizes.get(each, 1) for each in calls[key])
    nodes = [node.op_identifier() for graph in graphs for node in graph.all_nodes()]
    written = len(nodes) + sum(map(len, calls.values()))
    total = sum(sizes.get(each, 1) for each in nodes)
    if total > max(_MAX_NODES, _MAX_GROWTH * written):
        raise GraphScaleError(
            f"{source}: its functions call each other so often that {written} nodes become "
            f"{total:.3g}; export it without functions"
        )


class _Inliner:
    """Inlines the calls in one graph after another."""

    def __init__(
        self, model: ir.Model, functions: Mapping[ir.OperatorIdentifier, ir.Function], source: str
    ) -> None:
        self._model = model
        self._functions = functions
        self._source = source
        self._names = FreeNames.for_values(model)
        self._node_names = FreeNames(node.name for node in model.graph.all_nodes())
        self._checked: set[ir.OperatorIdentifier] = set()

    def inline(self, graph: ir.Graph) -> None:
        """Inline all calls in `graph` and in the graphs inside its nodes."""
        for node in graph:  # continues with the nodes of an inlined body, and inlines calls there
            function = self._functions.get(node.op_identifier())
            if function is None:
                for inner in _graphs_of(node):
                    self.inline(inner)
                continue
            self._check_opsets(function)
            self._check_call(node, function)
            given = [*node.inputs, *[None] * (len(function.inputs) - len(node.inputs))]
            values = dict(zip(function.inputs, given))
            attributes = {
                name: attribute
                for name, attribute in function.attributes.items()
                if attribute.value is not None
            } | dict(node.attributes)
            body = [self._copy_node(each, values, attributes) for each in function]
            results = [values.get(output) for output in function.outputs]
            if any(result is None for result in results):
                raise GraphScaleError(
                    f"{self._source}: the function {function.domain}.{function.name} hands on an "
                    f"input that node {node.name!r} leaves out; export the model again"
                )
            replace_node(node, body, results)

    def _check_call(self, node: ir.Node, function: ir.Function) -> None:
        """Raise where a call has more inputs or outputs than the function."""
        if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
            raise GraphScaleError(
                f"{self._source}: node {node.name!r} does not fit the function "
                f"{function.domain}.{function.name} that it calls; export the model again"
            )

    def _check_opsets(self, function: ir.Function) -> None:
        """Add the function's operator sets to the model; raise where the two define differently."""
        if function.identifier() in self._checked:
            return
        self._checked.add(function.identifier())
        imports = self._model.opset_imports
        for domain, version in function.opset_imports.items():
            own = imports.setdefault(domain, version)
            if own == version:
                continue
            for node in function.all_nodes():
                if node.domain == domain and not _same_operator(node, version, own):
                    raise GraphScaleError(
                        f"{self._source}: the function {function.domain}.{function.name} uses "
                        f"{node.op_type} of opset {version}, which the model's opset {own} defines "
                        "differently; convert the model to one opset"
                    )

    def _copy_node(
        self,
        node: ir.Node,
        values: dict[ir.Value, ir.Value | None],
        attributes: Mapping[str, ir.Attr],
    ) -> ir.Node:
        """A copy of a function's node that reads `values` and has its references resolved."""
        copied = ir.Node(
            node.domain,
            node.op_type,
            [values.get(value, value) for value in node.inputs],
            self._copy_attributes(node, values, attributes),
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
            name=self._node_names.free(node.name) if node.name else node.name,
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
        )
        for old, new in zip(node.outputs, copied.outputs):
            self._copy_value(old, new)
            values[old] = new
        return copied

    def _copy_attributes(
        self,
        node: ir.Node,
        values: dict[ir.Value, ir.Value | None],
        attributes: Mapping[str, ir.Attr],
    ) -> list[ir.Attr]:
        copied = []
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                given = attributes.get(attribute.ref_attr_name)
                if given is not None:  # else the call leaves the attribute out, and so do we
                    copied.append(ir.Attr(name, given.type, given.value))
            elif attribute.type == ir.AttributeType.GRAPH:
                graph = self._copy_graph(attribute.as_graph(), values, attributes)
                copied.append(ir.AttrGraph(name, graph))
            elif attribute.type == ir.AttributeType.GRAPHS:
                graphs = [
                    self._copy_graph(each, values, attributes) for each in attribute.as_graphs()
                ]
                copied.append(ir.AttrGraphs(name, graphs))
            else:
                copied.append(attribute)
        return copied

    def _copy_graph(
        self,
        graph: ir.Graph,
        values: dict[ir.Value, ir.Value | None],
        attributes: Mapping[str, ir.Attr],
    ) -> ir.Graph:
        for value in (*graph.inputs, *graph.initializers.values()):
            new = ir.Value(const_value=value.const_value)
            self._copy_value(value, new)
            values[value] = new
        nodes = [self._copy_node(node, values, attributes) for node in graph]
        return ir.Graph(
            [values[value] for value in graph.inputs],
            [values.get(value, value) for value in graph.outputs],
            nodes=nodes,
            initializers=[values[value] for value in graph.initializers.values()],
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
        )

    def _copy_value(self, old: ir.Value, new: ir.Value) -> None:
        new.name = self._names.free(old.name) if old.name else old.name
        new.type = old.type
        new.shape = old.shape.copy() if old.shape is not None else None


def _same_operator(node: ir.Node, version: int, other: int) -> bool:
    """Whether two versions of an operator set define a node's operator in the same words."""
    try:
        first, second = (
            onnx.defs.get_schema(node.op_type, each, node.domain).since_version
            for each in (version, other)
        )
    except onnx.defs.SchemaError:
        return False
    return first == second


def _graphs_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds: branches and loop bodies."""
    graphs: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs.extend(attribute.as_graphs())
    return graphs
