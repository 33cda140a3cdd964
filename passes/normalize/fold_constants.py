"""Turn weights that nodes compute from constants into initializers of the same name.

Some exporters and test models write a weight as ConstantOfShape, or as arithmetic on initializers.
Only an initializer can be resized, so the numbers are computed and take the place of these nodes.
Nodes that only rearrange a weight (Transpose, Identity, Cast …) are left alone, because
`weight_source` finds the initializer behind them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.add_initializer import register_initializer
from graphscale.passes.graph.evaluate_node import evaluate_node
from graphscale.passes.graph.fixed_weights import computed_from_fixed, mark_fixed
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.random_nodes import is_random
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.registry import find_rule

rules.load()

# Operators whose constant operands are weights where they are fills (one number repeated) or
# tables of positions that arithmetic makes of other constants, such as a grid of coordinates.
# Convolutions and products are not listed: their rules in passes.spatial say which of their inputs
# are weights, whatever computes these. Constant operands of all other operators are sizes, bounds
# and scales, and are not folded.
_SCALING = {
    *("Add", "Mul", "Sub", "Div", "PRelu", "BatchNormalization", "InstanceNormalization"),
    *("LayerNormalization", "GroupNormalization", "RMSNormalization", "Concat", "GridSample"),
}
# What makes a table of other constants. Tables that layers make (by products, by looking values up)
# or that are fitted to a map (by Resize) are none: what stands behind them is trained or resized.
_ARITHMETIC = {
    *("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Cos", "CumSum", "Div", "Equal"),
    *("Exp", "Expand", "Floor", "Identity", "Mul", "Neg", "Pow", "Range", "Reshape", "Sin"),
    *("Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where"),
}
_MAX_ELEMENTS = 1 << 31  # of a ConstantOfShape, of which a few bytes can ask for all the memory


class FoldConstants(ir.passes.InPlacePass):
    """Fold the computed floating-point weights; the result names them.

    Raises:
        GraphScaleError: a weight cannot be computed; names the node.
    """

    def call(self, model: ir.Model) -> RewriteResult:
        """Fold in place."""
        names: FreeNames | None = None
        folded: list[str] = []
        initializers = model.graph.initializers.values()
        constant = {value for value in initializers if value.const_value is not None}
        fills: set[ir.Value] = set()  # what comes from a ConstantOfShape, not from arithmetic
        made = set(constant)  # what arithmetic makes of constants, and these
        for node in model.graph:
            inputs = [value for value in node.inputs if value is not None]
            if _is_computable(node) and all(value in constant for value in inputs):
                constant.update(node.outputs)
                if node.op_type == "ConstantOfShape" or (inputs and inputs[0] in fills):
                    fills.update(node.outputs)
                if node.op_type in _ARITHMETIC and made.issuperset(inputs):
                    made.update(node.outputs)
                continue
            for value in inputs:
                if value not in constant or not _is_candidate(node, value):
                    continue
                if _is_multiplied(node, value) or value in fills or _is_table(model, value, made):
                    names = names or FreeNames.for_values(model)
                    folded.append(value.name)
                    constant.add(_fold(model, value, names))
        return RewriteResult.of(model, folded)


def _is_computable(node: ir.Node) -> bool:
    """Whether a node gives the same numbers each time that its inputs have the same numbers."""
    if not is_random(node) and (node.inputs or node.op_type == "Constant"):
        graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        return not any(attribute.type in graphs for attribute in node.attributes.values())
    return False


def _is_candidate(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` reads a computed constant where floating-point weights stand."""
    if value.producer() is None or weight_source(value) is not None:
        return False
    if node.op_type not in _SCALING and not _weight_inputs(node):
        return False
    dtype = _dtype(value)
    return dtype is None or dtype.is_floating_point()


def _is_multiplied(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` multiplies by the constant, so that it is a weight whatever computes it."""
    return node.inputs.index(value) in _weight_inputs(node)


def _is_table(model: ir.Model, value: ir.Value, made: set[ir.Value]) -> bool:
    """Whether arithmetic makes a table: more than one of its dimensions is longer than 1."""
    return value in made and sum(size > 1 for size in _compute(model, value).shape) > 1


def _weight_inputs(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of `node` its rule says can be a weight."""
    rule = find_rule(node)
    return rule.weight_inputs if rule is not None else ()


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    """The element type of a constant, as far as its producers tell."""
    while value is not None:
        if value.dtype is not None:
            return value.dtype
        node = value.producer()
        if node is None:
            return value.const_value.dtype
        if node.op_type == "Cast":
            return ir.DataType(node.attributes.get_int("to"))
        if node.op_type in ("Shape", "Size"):
            return ir.DataType.INT64
        if node.op_type in ("Constant", "ConstantOfShape"):
            tensor = node.attributes.get("value")
            if tensor is not None:
                return tensor.as_tensor().dtype
            return None if node.op_type == "Constant" else ir.DataType.FLOAT
        value = node.inputs[0] if node.inputs else None
    return None


def _fold(model: ir.Model, value: ir.Value, names: FreeNames) -> ir.Value:
    """Replace `value` by an initializer that takes over its name."""
    array = _compute(model, value)
    fixed = computed_from_fixed(value)
    initializer = register_initializer(model, names.hand_over(value, "_unfolded"), array)
    if fixed:
        mark_fixed(initializer)
    value.replace_all_uses_with(initializer, replace_graph_outputs=True)
    _remove_unused(model.graph, value.producer())
    return initializer


def _compute(model: ir.Model, value: ir.Value) -> np.ndarray:
    """The value of a constant. Each node behind it is computed once, however often it is read."""
    known: dict[ir.Value, np.ndarray] = {}
    pending = [value]
    while pending:
        each = pending[-1]
        node = each.producer()
        missing = [] if node is None else [v for v in node.inputs if v and v not in known]
        if each not in known and missing:
            pending += missing
            continue
        pending.pop()
        if each in known:
            continue
        if node is None:
            known[each] = each.const_value.numpy()
        elif node.op_type == "ConstantOfShape" and node.domain == "":
            known[each] = _fill(node, known[node.inputs[0]])
        else:
            inputs = [None if v is None else known[v] for v in node.inputs]
            known.update(zip(node.outputs, evaluate_node(model, node, inputs)))
    return known[value]


def _fill(node: ir.Node, shape: np.ndarray) -> np.ndarray:
    """What a ConstantOfShape gives, without spending memory on it."""
    if float(np.prod(shape.astype(float))) > _MAX_ELEMENTS:
        raise GraphScaleError(
            f"node {node.name!r} (ConstantOfShape) makes a weight of shape {shape.tolist()}, which "
            "is larger than any memory; check the model"
        )
    tensor = node.attributes.get("value")
    number = tensor.as_tensor().numpy().reshape(()) if tensor is not None else np.float32(0)
    return np.broadcast_to(number, shape.tolist())


def _remove_unused(graph: ir.Graph, node: ir.Node) -> None:
    """Remove `node`, and the nodes before it, as far as nothing else reads them."""
    pending = [node]
    while pending:
        each = pending.pop()
        read = any(value.uses() or value.is_graph_output() for value in each.outputs)
        if each.graph is None or read:
            continue
        before = [value.producer() for value in each.inputs if value is not None]
        graph.remove(each, safe=True)
        pending += [producer for producer in before if producer is not None]
