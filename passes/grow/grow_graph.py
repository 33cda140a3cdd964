"""Fill the target network with a checkpoint's weights, resized where the plan says so.

In go the target's graph (as the plan carries it, without weights), the trained pre-train network
and the plan; the graph gets its weights, and `Growth` lists what was done with each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphscale.core.detached_tensors import node_tensors
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan, WeightPlan
from graphscale.core.resize_weights import grow_tensor
from graphscale.core.skeleton import is_stripped
from graphscale.passes.grow.follow_untied_weights import FollowUntiedWeights
from graphscale.passes.grow.match_weights import match_weights, tensors_by_name

# Operators whose inputs, all but the first, are settings rather than weights.
_WITH_SETTINGS = ("Resize", "Upsample", "Clip", "Pad", "Dropout")


@dataclass
class Growth:
    """What was done, as names of the target's weights.

    Attributes:
        resized: Weights that were grown.
        copied: Weights that both networks have in the same shape.
        untied: Weights that layers shared in the target file and have of their own now.
        renamed: Weights that bear another name in the checkpoint, matched by structure.
    """

    resized: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def grow_graph(target: ir.Model, checkpoint: ir.Model, plan: Plan, method: str) -> Growth:
    """Fill `target`, which has the plan's target graph, from `checkpoint`.

    Weights that the plan resizes are grown with `method` when they are read; all others are copied,
    converted to the target's element type.

    Raises:
        GraphScaleError: the checkpoint lacks a weight, or holds one of another shape; names it.
    """
    growth = Growth(untied=FollowUntiedWeights(checkpoint, plan.constants)(target).names)
    resized = {weight.name: weight for weight in plan.weights}
    tensors = tensors_by_name(target)
    _check_plan(resized, tensors)
    settings = _settings(target)
    learned = {
        name: tuple(resized[name].pretrain_shape)
        if name in resized
        else tuple(tensor.shape.numpy())
        for name, tensor in tensors.items()
        if name not in plan.constants
        and (is_stripped(tensor) or (_learned(tensor) and name not in settings))
    }
    matched = match_weights(target, checkpoint, learned)
    given = tensors_by_name(checkpoint)
    _check_complete(checkpoint, learned, matched, tensors, given)
    filled: dict[str, ir.TensorProtocol] = {}
    for name, other in matched.items():
        tensor = _as_type(given[other], tensors[name].dtype)
        if name in resized:
            filled[name] = grow_tensor(tensor, resized[name], method)
            growth.resized.append(name)
        else:
            filled[name] = tensor
            growth.copied.append(name)
        if other != name:
            growth.renamed[name] = other
    for name, value in target.graph.initializers.items():
        if name in filled:
            value.const_value = filled[name]
    for node, key, _ in list(node_tensors(target.graph)):
        if node.op_type == "Constant" and node.outputs[0].name in filled:
            node.attributes[key] = ir.AttrTensor(key, filled[node.outputs[0].name])
    return growth


def _check_plan(
    resized: Mapping[str, WeightPlan], tensors: Mapping[str, ir.TensorProtocol]
) -> None:
    """Raise where the plan grows a weight to another shape than its target network has."""
    for name, weight in resized.items():
        if name in tensors and weight.target_shape != list(tensors[name].shape.numpy()):
            raise GraphScaleError(
                f"the plan grows weight {name!r} to the shape {weight.target_shape}, but in its "
                f"target network it has the shape {list(tensors[name].shape.numpy())}; give the "
                "plan that shrink wrote"
            )


def _learned(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor can have been trained."""
    return tensor.dtype.is_floating_point()


def _settings(model: ir.Model) -> set[str]:
    """Tensors that no node reads as data: a Resize's scales, a Clip's bounds, unused ones."""
    values = list(model.graph.initializers.values())
    values += [node.outputs[0] for node in model.graph if node.op_type == "Constant"]
    return {
        value.name
        for value in values
        if all(i > 0 and node.op_type in _WITH_SETTINGS for node, i in value.uses())
    }


def _as_type(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """The tensor in the target's type, converted when it is read."""
    if tensor.dtype == dtype:
        return tensor
    if ir.DataType.STRING in (tensor.dtype, dtype):
        raise GraphScaleError(
            f"weight {tensor.name!r} holds {tensor.dtype.name} in the checkpoint and {dtype.name} "
            "in the target; give a checkpoint of the network that the plan was made for"
        )

    def convert() -> ir.TensorProtocol:
        given = tensor.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers are looked at instead
            array = given.astype(dtype.numpy())
            if not np.array_equal(np.isfinite(array), np.isfinite(given)):
                raise GraphScaleError(
                    f"weight {tensor.name!r} holds numbers that are too large for {dtype.name}, "
                    "its type in the target; shrink and train a target with larger types"
                )
        return ir.Tensor(array, dtype, name=tensor.name)

    return ir.LazyTensor(convert, dtype=dtype, shape=tensor.shape, name=tensor.name, cache=False)


def _check_complete(checkpoint: ir.Model, learned, matched, tensors, given) -> None:
    """Raise where weights have no match.

    A single number that the target's graph holds itself, such as a scale or a bound, needs none.
    """
    missing = [
        name
        for name, shape in learned.items()
        if name not in matched and (is_stripped(tensors[name]) or np.prod(shape) > 1)
    ]
    if not missing:
        return
    source = checkpoint.meta.get("source", "the checkpoint")
    first = missing[0]
    text = f"{source}: no weight fits {first!r} of shape {list(learned[first])}"
    if first in given:
        text += f" (it has the shape {list(given[first].shape.numpy())} there)"
    if len(missing) > 1:
        text += f", nor {len(missing) - 1} others ({', '.join(map(repr, missing[1:6]))}"
        text += ", …)" if len(missing) > 6 else ")"
    raise GraphScaleError(
        f"{text}; give a checkpoint of the network that the plan was made for, "
        "exported without folding BatchNormalization"
    )
