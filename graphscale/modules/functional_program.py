"""torch.export's program of a module in a form that torch.onnx translates without decomposing it.

In: a module and its example input. Out: an ExportedProgram for torch.onnx.export, or None.

torch.onnx.export spends more than half of its time on run_decompositions, which traces the program
twice more to replace in-place operators and operators that it cannot translate. For convolutional
networks a few edits of the graph do the same: an in-place operator becomes its out-of-place twin;
batch normalisation and global pooling become the operators that they would be decomposed to. Where
these edits are not enough, the result is None and the caller leaves the module to torch.onnx.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from graphscale.modules.example import Example

_ATEN = torch.ops.aten
# Adaptive pooling -> the pooling by windows and the interpolation that do the same at some sizes.
_ADAPTIVE_POOLS = {
    _ATEN.adaptive_avg_pool1d.default: (_ATEN.avg_pool1d.default, _ATEN.upsample_nearest1d.vec),
    _ATEN.adaptive_avg_pool2d.default: (_ATEN.avg_pool2d.default, _ATEN.upsample_nearest2d.vec),
}
# Operators that may return their very input although their schema does not say so.
_MAY_RETURN_INPUT = {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout"}


def functional_program(
    module: torch.nn.Module, example: Example
) -> torch.export.ExportedProgram | None:
    """The program of `module` with a symbolic batch, or None where it needs decomposing.

    Args:
        module: With its normalization layers in evaluation mode.
        example: With at least two images, if its batch is to be symbolic.
    """
    try:
        # Without this setting torch would treat a batch of 0 or 1 as a special case.
        with torch.fx.experimental._config.patch(backed_size_oblivious=True):
            program = torch.export.export(
                module,
                example.args,
                example.kwargs,
                dynamic_shapes=example.symbolic_batch(),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=False,
            )
    except Exception:
        return None  # torch.onnx.export tries other strategies, and says why if all of them fail
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and not _rewrite(node):
            return None
    program.graph_module.recompile()
    program.run_decompositions = lambda *args, **kwargs: program
    return program


def _rewrite(node: fx.Node) -> bool:
    """Edit one node; returns False if the program needs decomposing."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return not isinstance(target, torch._ops.HigherOrderOperator)
    if target is _ATEN.batch_norm.default:
        return _rewrite_batch_norm(node)
    if target in _ADAPTIVE_POOLS:
        return _rewrite_adaptive_pool(node, *_ADAPTIVE_POOLS[target])
    return _rewrite_in_place(node) if target._schema.is_mutable else True


def _rewrite_batch_norm(node: fx.Node) -> bool:
    """Replace batch normalisation by the operator of evaluation mode and a getitem of its tuple."""
    x, scale, bias, mean, variance, training, momentum, epsilon, _ = node.args
    if training or any(each is None for each in (scale, bias, mean, variance)):
        return False
    if any(user.op == "output" for user in node.users):
        return False
    graph = node.graph
    with graph.inserting_before(node):
        whole = graph.call_function(
            _ATEN._native_batch_norm_legit_no_training.default,
            (x, scale, bias, mean, variance, momentum, epsilon),
        )
        first = graph.call_function(operator.getitem, (whole, 0))
    value = node.meta["val"]
    whole.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    first.meta = dict(node.meta)
    node.replace_all_uses_with(first)
    graph.erase_node(node)
    return True


def _rewrite_adaptive_pool(
    node: fx.Node, pool: torch._ops.OpOverload, repeat: torch._ops.OpOverload
) -> bool:
    """Replace adaptive average pooling by a mean, by windows of one size, or by repeated pixels.

    Pooling by windows of different sizes stays as it is.
    """
    x, after = node.args[0], list(node.args[1])
    before = list(x.meta["val"].shape[-len(after) :])
    if set(after) == {1}:
        node.target, node.args = _ATEN.mean.dim, (x, list(range(-len(after), 0)), True)
        return True
    if not all(isinstance(size, int) for size in before) or x.meta["val"].ndim != len(after) + 2:
        return False
    windows = [_equal_windows(*sizes) for sizes in zip(before, after)]
    if None not in windows:
        node.target, node.args = pool, (x, *map(list, zip(*windows)))
        return True
    if all(large % small == 0 for small, large in zip(before, after)):
        node.target, node.args = repeat, (x, after, None)
    return True  # else the operator itself is translated


def _equal_windows(before: int, after: int) -> tuple[int, int] | None:
    """Kernel and stride of adaptive pooling from `before` to `after` pixels.

    None where its windows, from floor(i·before/after) to ceil((i + 1)·before/after), are of
    different sizes or distances.
    """
    stride = before // after
    kernel = before - (after - 1) * stride
    for i in range(after):
        first, last = i * before // after, -(-(i + 1) * before // after)
        if (first, last) != (i * stride, i * stride + kernel):
            return None
    return (kernel, stride) if stride else None


def _rewrite_in_place(node: fx.Node) -> bool:
    """Replace `y = f_(x)` by `y = f(x)`, and x by y in every later node.

    That is correct if nothing else shares the memory of x: x is computed (no weight, no input), is
    no view, and no earlier node took a view of it.
    """
    name = node.target._schema.name.removeprefix("aten::")
    packet = getattr(_ATEN, name.removesuffix("_"), None)
    overload = node.target._overloadname
    x = node.args[0] if node.args else None
    if not name.endswith("_") or packet is None or overload not in packet.overloads():
        return False
    if not isinstance(x, fx.Node) or x.op != "call_function" or _may_alias(x):
        return False
    order = {each: index for index, each in enumerate(node.graph.nodes)}
    later = [user for user in x.users if order[user] > order[node]]
    earlier = [user for user in x.users if order[user] < order[node]]
    if any(map(_may_alias, earlier)) or any(user.op == "output" for user in later):
        return False
    node.target = getattr(packet, overload)
    for user in later:
        user.replace_input_with(x, node)
    return True


def _may_alias(node: fx.Node) -> bool:
    """Whether a node's result may share memory with one of its arguments."""
    target = node.target
    if target is operator.getitem:
        return _may_alias(node.args[0])
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)
    schema = target._schema
    shared = any(value.alias_info is not None for value in schema.returns)
    return shared or schema.name in _MAY_RETURN_INPUT
