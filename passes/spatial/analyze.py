"""Follow heights and widths through a graph: which sizes are equal, and what maps one to another.

In goes a model with its inferred shapes, out comes a `SpatialAnalysis`. Each operator's rule says
what the operator does. An operator without a rule is refused where a height or width goes in; where
none does, its outputs are fixed.
"""

from __future__ import annotations

from contextlib import suppress

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.node_names import node_name
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.infer_shapes import InferredShapes
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyzer import Analyzer
from graphscale.passes.spatial.dimensions import fixed, moves
from graphscale.passes.spatial.image_positions import spatial_positions
from graphscale.passes.spatial.registry import find_rule

rules.load()


def analyze(
    model: ir.Model,
    inferred: InferredShapes,
    *,
    scale_windows: bool = False,
    keeps_sizes: bool = False,
) -> SpatialAnalysis:
    """Analyze the spatial sizes of `model` from its inputs on.

    Args:
        model: The target network.
        inferred: Its shapes.
        scale_windows: Where a map is cut into windows, keep their number and let their size follow
            the map. Otherwise their size is kept.
        keeps_sizes: Whether the sizes that cannot be followed are to stay as they are (`unfollowed`
            of the analysis) and are no reason for an error.

    Raises:
        GraphScaleError: an operator has no rule, or uses heights and widths in a way that cannot be
            followed; names the node.
    """
    if keeps_sizes:
        return _analyze(model, inferred, scale_windows, keeps_sizes=True)
    try:
        return _analyze(model, inferred, scale_windows)
    except GraphScaleError:
        # A network may make a map of numbers alone, such as sines of the places of its pixels.
        with suppress(GraphScaleError):
            return _analyze(model, inferred, scale_windows, spread_numbers=True)
        raise


def _analyze(
    model: ir.Model,
    inferred: InferredShapes,
    scale_windows: bool,
    spread_numbers: bool = False,
    keeps_sizes: bool = False,
) -> SpatialAnalysis:
    """As `analyze`; with `spread_numbers`, a number that Expand spreads may become a map."""
    common = {"scale_windows": scale_windows, "spread_numbers": spread_numbers}
    analyzer = Analyzer(model, inferred, **common)
    refusal = _follow(analyzer)
    # Which of two numbers is a window's size shows only when all cuts are known.
    window = None if scale_windows else analyzer.common_window()
    if window is not None and any(each.kept != window for each in analyzer.cuts):
        analyzer = Analyzer(model, inferred, window=window, spread_numbers=spread_numbers)
        refusal = _follow(analyzer)
    # Only after sizes have been followed to the convolutions is it known which inputs are images,
    # and which of their dimensions are channels. Where some are not what they were taken for, all
    # sizes are followed again, and those of these inputs stay fixed.
    channels = analyzer.channels_of_inputs()
    if channels:
        analyzer = Analyzer(model, inferred, channels=channels, window=window, **common)
        refusal = _follow(analyzer)
    apart = analyzer.apart_from_maps()
    if apart and len(apart) < analyzer.source_count():
        analyzer = Analyzer(
            model,
            inferred,
            standing_still=apart,
            channels=channels,
            window=analyzer.window,
            **common,
        )
        refusal = _follow(analyzer)
    if refusal is not None and not keeps_sizes:
        raise refusal
    for value in model.graph.outputs:
        analyzer.anchor(analyzer.of(value))
    return analyzer.finish()


def _follow(analyzer: Analyzer) -> GraphScaleError | None:
    """Apply every node's rule; returns the first refusal. Outputs of refused nodes are fixed."""
    refusal = None
    for value in graph_inputs(analyzer.model):
        analyzer.feed(value, spatial_positions(value, len(analyzer.shape(value))))
    for node in analyzer.model.graph:
        if _is_known(node, analyzer):
            continue
        try:
            _apply_rule(node, analyzer)
        except GraphScaleError as error:
            refusal = refusal or error
            for value in _read(node):
                analyzer.refuse(analyzer.dims.get(value, ()))
            _fix_outputs(node, analyzer)
    return refusal


def _is_known(node: ir.Node, analyzer: Analyzer) -> bool:
    """Whether a node computes numbers that follow from shapes and constants alone.

    A table of positions that is resized to a map, and what is made of it, follows the map.
    """
    constants = analyzer.inferred.constants
    if not all(output in constants for output in node.outputs if output.name):
        return False
    read = [value for value in node.inputs if value is not None]
    follows = any(moves(dim) for value in read for dim in analyzer.dims.get(value, ()))
    follows = follows or node.op_type == "Resize"
    if analyzer.spread_numbers and node.op_type not in ("Shape", "Size"):
        return not (follows or _spreads_a_number(node, analyzer))
    return not follows or constants[node.outputs[0]].dtype.kind != "f"


def _spreads_a_number(node: ir.Node, analyzer: Analyzer) -> bool:
    """Whether an Expand makes a map of one number that has no dimensions."""
    return node.op_type == "Expand" and not analyzer.shape(node.inputs[0])


def _apply_rule(node: ir.Node, analyzer: Analyzer) -> None:
    rule = find_rule(node)
    if rule is not None:
        rule.analyze(node, analyzer)
    elif any(moves(dim) for value in _read(node) for dim in analyzer.dims.get(value, ())):
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise GraphScaleError(
            f"node {node_name(node)!r}: the operator {operator} has no rule for heights and "
            "widths; cut the model before it, replace the node, or add a rule (CONTRIBUTING.md)"
        )
    else:
        _fix_outputs(node, analyzer)


def _fix_outputs(node: ir.Node, analyzer: Analyzer) -> None:
    for output in node.outputs:
        if output in analyzer.inferred.shapes:
            analyzer.dims[output] = tuple(fixed(size) for size in analyzer.shape(output))
        if output in analyzer.inferred.sequences:
            shapes = analyzer.inferred.sequences[output]
            analyzer.sequences[output] = [tuple(map(fixed, shape)) for shape in shapes]


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads: its inputs, and what its subgraphs (of If, Loop) read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = attribute.as_graphs()
        else:
            continue
        for graph in graphs:
            values.extend(v for inner in graph.all_nodes() for v in inner.inputs if v is not None)
            values.extend(graph.outputs)
    return values
