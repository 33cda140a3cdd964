"""Unroll each Loop that holds layers and runs a known number of times.

The rules that follow heights and widths, and the import into torch, work on one graph. In goes a
model; each Loop becomes its body's nodes, once for each round, which share the weights. The target
network that a plan carries keeps its Loop, so that growing gives it back.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.passes.graph.add_initializer import add_initializer
from graphscale.passes.graph.free_names import FreeNames
from graphscale.passes.graph.replace_node import replace_node
from graphscale.passes.graph.rewrite_result import RewriteResult
from graphscale.passes.graph.weight_source import tensor_of, weight_source
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.registry import product_rule

rules.load()

_MAX_ROUNDS = 64
_OPSET = 13  # the first one whose Unsqueeze takes axes as an input


class UnrollLoops(ir.passes.InPlacePass):
    """Replace each Loop that holds layers and runs a known number of times; names them."""

    def call(self, model: ir.Model) -> RewriteResult:
        """Replace in place."""
        unrolled: list[str] = []
        names: FreeNames | None = None
        for node in model.graph:
            rounds = rounds_of_layers(node, model)
            if rounds is not None:
                names = names or FreeNames.for_values(model)
                unrolled.append(node_name(node))
                _unroll(model, node, rounds, names)
        return RewriteResult.of(model, unrolled)


def rounds_of_layers(node: ir.Node, model: ir.Model) -> int | None:
    """How often a Loop that holds layers runs; None for any other node, or where data decide."""
    if node.op_type != "Loop" or node.domain != "" or model.opset_imports.get("", 1) < _OPSET:
        return None
    body = node.attributes["body"].as_graph()
    if len(body.outputs) != len(node.outputs) + 1 or not any(map(product_rule, body)):
        return None
    attributes = [attribute for inner in body for attribute in inner.attributes.values()]
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in attributes):
        return None
    count, condition = (weight_source(value) for value in node.inputs[:2])
    runs_on = _always_true(body.outputs[0], body.inputs[1])
    if count is None or not runs_on or (node.inputs[1] is not None and not _is_true(condition)):
        return None
    rounds = _number(count)
    return int(rounds) if rounds is not None and 0 < rounds <= _MAX_ROUNDS else None


def _is_true(held: ir.Value | None) -> bool:
    return held is not None and bool(_number(held))


def _number(held: ir.Value) -> float | None:
    """The number that a constant holds; None where it holds none, or several."""
    numbers = tensor_of(held).numpy()
    return numbers.item() if numbers.size == 1 else None


def _always_true(value: ir.Value, given: ir.Value) -> bool:
    """Whether a body's condition is the one that it was given, or constant."""
    while value.producer() is not None and value.producer().op_type == "Identity":
        value = value.producer().inputs[0]
    return value is given or _is_true(weight_source(value))


def _unroll(model: ir.Model, node: ir.Node, rounds: int, names: FreeNames) -> None:
    """Put the nodes of all rounds in the place of the Loop."""
    body = node.attributes["body"].as_graph()
    carried = [value for value in node.inputs[2:] if value is not None]
    collected: list[list[ir.Value]] = []  # what each round adds to the outputs that are stacked
    nodes: list[ir.Node] = []
    for number in range(rounds):
        inner = body.clone(allow_outer_scope_values=True)
        given = [
            add_initializer(model, f"{node_name(node)}.round", np.asarray(number), names),
            add_initializer(model, f"{node_name(node)}.condition", np.asarray(True), names),
            *carried,
        ]
        results = list(inner.outputs)
        inner.outputs.clear()
        for value, replacement in zip(inner.inputs, given, strict=True):
            value.replace_all_uses_with(replacement)
            results = [replacement if each is value else each for each in results]
        for value in given[:2]:
            if not value.uses() and value not in results:
                model.graph.initializers.pop(value.name)
        added = list(inner)
        inner.remove(added)
        for each in added:
            each.name = f"{node_name(each)}.{number}"
            for value in each.outputs:
                value.name = names.free(value.name) if value.name else value.name
        nodes += added
        carried = results[1 : 1 + len(carried)]
        collected.append(results[1 + len(carried) :])
    stacked: list[ir.Value] = []
    for parts in zip(*collected, strict=True):
        first = add_initializer(model, f"{node_name(node)}.axis", np.asarray([0]), names)
        rows = [ir.node("Unsqueeze", [part, first]) for part in parts]
        joined = ir.node("Concat", [row.outputs[0] for row in rows], {"axis": 0})
        for row in rows:
            row.outputs[0].name = names.free(f"{node_name(node)}.row")
        nodes += [*rows, joined]
        stacked.append(joined.outputs[0])
    for index, each in enumerate(nodes):
        each.name = each.name or f"{node_name(node)}.{index}"
    replace_node(node, nodes, [*carried, *stacked])
