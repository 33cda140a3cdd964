"""Grow a trained pre-train network back to its target network (Eq. 5 of arXiv 1610.03623).

In go the checkpoint, and its plan or target where it does not carry a plan; out comes the target's
graph with the checkpoint's weights, resized where the plan says so.
"""

from __future__ import annotations

import os

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import ModelLike, load_model
from graphscale.core.plan import METADATA_KEY, Plan
from graphscale.core.resampling import check_method
from graphscale.core.skeleton import restore
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.grow.grow_graph import Growth, grow_graph
from graphscale.passes.grow.match_weights import tensors_by_name
from graphscale.passes.normalize.normalize import normalize
from graphscale.passes.spatial.image_positions import spatial_positions
from graphscale.rescaling.check_numbers import check_numbers
from graphscale.rescaling.input_size import InputSize
from graphscale.rescaling.plan import plan_model


def grow_model(
    checkpoint: ir.Model,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | None = None,
    resize: str = "bilinear",
) -> tuple[ir.Model, Growth, Plan]:
    """Grow `checkpoint`; returns the grown model, what was done, and the plan that was followed.

    Arguments as for `graphscale.grow`.

    Raises:
        GraphScaleError: there is no plan, or the checkpoint is of another network.
    """
    check_method(resize)
    plan = _find_plan(checkpoint, plan, target)
    normalize(checkpoint)
    check_numbers(checkpoint)
    grown = restore(plan.target)
    growth = grow_graph(grown, checkpoint, plan, resize)
    grown.metadata_props.update(
        {k: v for k, v in checkpoint.metadata_props.items() if k != METADATA_KEY}
    )
    return grown, growth, plan


def _find_plan(
    checkpoint: ir.Model, plan: Plan | str | os.PathLike | None, target: ModelLike | None
) -> Plan:
    """Find the plan: the one given, else the checkpoint's own, else one derived from the target.

    Where there is a plan, a target that is given must have its weights. A plan that is given must
    equal the checkpoint's own, where it has a readable one: two commands that wrote the same files
    at once may have left the model of one beside the plan of the other.
    """
    given = Plan.given(plan)
    try:
        own = Plan.of(checkpoint)
    except GraphScaleError:
        if given is None and target is None:  # with either, a plan of another version is not needed
            raise
        own = None
    if given is not None and own is not None and own != given:
        name = "the plan" if isinstance(plan, Plan) else plan
        raise GraphScaleError(
            f"{name}: is another plan than the one inside "
            f"{checkpoint.meta.get('source', 'the checkpoint')}; leave --plan out to follow that"
        )
    found = given or own
    if found is not None:
        if target is not None:
            _check_target(found, load_model(target), target)
        return found
    if target is not None:
        return _plan_like(checkpoint, load_model(target))
    source = checkpoint.meta.get("source", "the checkpoint")
    raise GraphScaleError(
        f"{source}: carries no plan; give the one that shrink wrote (--plan) or the target "
        "network (--target)"
    )


def _check_target(plan: Plan, target: ir.Model, given: ModelLike) -> None:
    """Raise GraphScaleError if the plan's weights have other shapes in `target`, or none is there.

    Single ones may not be there: the plan names weights that the target computes, too.
    """
    normalize(target)
    shapes = {name: list(tensor.shape.numpy()) for name, tensor in tensors_by_name(target).items()}
    found = [weight for weight in plan.weights if weight.name in shapes]
    wrong = [weight for weight in found if shapes[weight.name] != weight.target_shape]
    if not found:
        wrong = plan.weights
    if wrong:
        name = given if isinstance(given, (str, os.PathLike)) else "the target"
        raise GraphScaleError(
            f"{name}: is another network than the one that the checkpoint's plan leads to "
            f"(weight {wrong[0].name!r}); leave the target out to follow the plan"
        )


def _plan_like(checkpoint: ir.Model, target: ir.Model) -> Plan:
    """Derive the plan that leads from `target` to a network of the checkpoint's sizes.

    The checkpoint's input gives the input size, and its weights the size of each kernel. The table
    of these sizes is for dilations and for kernels that have other names in the checkpoint.
    `target` is changed.
    """
    value = graph_inputs(checkpoint)[0]
    shape = list(value.shape or [])
    sizes = [shape[i] for i in spatial_positions(value, len(shape)) if isinstance(shape[i], int)]
    given = {name: tensor.shape.numpy() for name, tensor in tensors_by_name(checkpoint).items()}
    own = {name: tensor.shape.numpy() for name, tensor in tensors_by_name(target).items()}
    known = {
        name: tuple(shape[2:])
        for name, shape in given.items()
        if len(shape) > 2
        and len(own.get(name, ())) == len(shape)
        and all(1 <= after <= before for before, after in zip(own[name][2:], shape[2:]))
    }
    table = {
        before: after
        for name, kernel in known.items()
        for before, after in zip(own[name][2:], kernel)
        if after < before
    }
    size = InputSize(pretrain=tuple(sizes)) if sizes else None
    return plan_model(target, input_size=size, kernels=table, known=known, copy=False)
