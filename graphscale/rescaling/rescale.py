"""Shrink and grow an onnx-ir model: the passes in their order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import ModelLike, load_model
from graphscale.core.node_names import forget_given_names
from graphscale.core.plan import METADATA_KEY, InputPlan, Plan
from graphscale.core.resampling import interpolation_matrix
from graphscale.core.resize_weights import shrink_tensor
from graphscale.core.skeleton import restore, strip
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.infer_shapes import infer_shapes
from graphscale.passes.graph.weight_source import set_tensor, tensor_of
from graphscale.passes.grow.grow_graph import Growth, grow_graph
from graphscale.passes.grow.match_weights import tensors_by_name
from graphscale.passes.normalize.fold_constants import FoldConstants
from graphscale.passes.normalize.normalize import normalize
from graphscale.passes.normalize.resolve_static_ifs import ResolveStaticIfs
from graphscale.passes.normalize.split_constants import MergeConstants, SplitConstants
from graphscale.passes.shrink.choose_input import choose_input
from graphscale.passes.shrink.choose_kernels import choose_kernels, share_kernels
from graphscale.passes.shrink.describe_layers import describe_layers
from graphscale.passes.shrink.initialize import initialize, is_trained
from graphscale.passes.shrink.plan_grids import plan_grids
from graphscale.passes.shrink.plan_weights import plan_weights
from graphscale.passes.shrink.shrink_graph import check_shapes, shrink_graph
from graphscale.passes.shrink.solve_geometry import solve_geometry
from graphscale.passes.spatial.dimensions import Extent, moves, pretrain_size, single_extent
from graphscale.passes.spatial.trace import spatial_positions, trace
from graphscale.passes.spatial.traced import Traced
from graphscale.rescaling.input_size import InputSize, axis_size, has_fixed_size, input_shapes

KernelTable = Mapping[int, int]
Size = str | int | tuple[int, ...] | InputSize | None


def shrink_model(
    model: ir.Model,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> Plan:
    """Turn `model` in place into its pre-train network and return the plan.

    Without `init` only the plan is made; the model's weights are not to be used afterwards.
    """
    if init not in (None, "auto", "resize", "fresh"):
        raise GraphScaleError(f"unknown initialisation {init!r}; use resize or fresh")
    source = model.meta.get("source", "the model")
    normalize(model)
    size = InputSize.parse(input_size, has_fixed_size(model))
    shapes = input_shapes(model, size)
    resolved_ifs = ResolveStaticIfs(shapes)(model).names
    folded = FoldConstants()(model).names
    target = strip(model)
    split = SplitConstants()
    split(model)
    traced = trace(model, infer_shapes(model, shapes))
    chosen = choose_kernels(traced, kernels, keep)
    if not chosen.target:
        raise GraphScaleError(f"{source}: holds no convolution; there is nothing to shrink")
    share_kernels(traced, chosen)
    geometry = solve_geometry(traced, _input_extents(traced, chosen, size))
    solved = geometry.solved
    weights = plan_weights(traced, chosen, solved)
    result = Plan(
        inputs=_describe_inputs(traced, solved),
        layers=describe_layers(
            traced, chosen, lambda dims: [pretrain_size(dim, solved) for dim in dims]
        ),
        weights=list(weights.values()),
        grids=plan_grids(traced, geometry),
        folded=folded,
        decided=resolved_ifs,
        target=target,
    )
    if init is not None:
        check_numbers(model)
        untrained = init == "auto" and not is_trained(model)
        result.init = "fresh" if init == "fresh" or untrained else "resize"
    for value, weight in weights.items():
        set_tensor(value, shrink_tensor(tensor_of(value), weight, "bilinear"))
    result.constants = shrink_graph(traced, solved)
    pretrain_shapes = {
        value.name: [pretrain_size(dim, solved) for dim in traced.of(value)]
        for value in graph_inputs(model)
    }
    check_shapes(traced, solved, pretrain_shapes)
    if result.init == "fresh":
        names = None if init == "fresh" else {weight.name for weight in result.weights}
        initialize(model, names, seed)
    MergeConstants(split.copies)(model)
    forget_given_names(model)
    result.attach(model)
    return result


def grow_model(
    checkpoint: ir.Model,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | None = None,
    resize: str = "bilinear",
) -> tuple[ir.Model, Growth, Plan]:
    """The grown model, what was done, and the plan that was followed; arguments as for `grow`."""
    interpolation_matrix(1, 1, resize)  # an unknown method is an error before any work
    if isinstance(plan, str | os.PathLike):
        plan = Plan.from_file(plan)
    plan = plan or Plan.of(checkpoint)
    if plan is None and target is not None:
        plan = _plan_like(checkpoint, load_model(target))
    if plan is None:
        source = checkpoint.meta.get("source", "the checkpoint")
        raise GraphScaleError(
            f"{source}: carries no plan; give the one that shrink wrote (--plan) or the target "
            "network (--target)"
        )
    normalize(checkpoint)
    check_numbers(checkpoint)
    grown = restore(plan.target)
    growth = grow_graph(grown, checkpoint, plan, resize)
    grown.metadata_props.update(
        {k: v for k, v in checkpoint.metadata_props.items() if k != METADATA_KEY}
    )
    return grown, growth, plan


def check_numbers(model: ir.Model) -> None:
    """Raise GraphScaleError for the first weight that holds NaN."""
    source = model.meta.get("source", "the model")
    for name, tensor in tensors_by_name(model).items():
        if not tensor.dtype.is_floating_point():
            continue
        array = tensor.numpy()
        if 0 in array.strides:  # one number spread over the whole tensor
            array = array.reshape(-1)[:1]
        flat = array.reshape(-1)
        for start in range(0, flat.size, 1 << 22):
            if np.isnan(flat[start : start + (1 << 22)]).any():
                raise GraphScaleError(
                    f"{source}: weight {name!r} holds NaN; go back to a checkpoint from before the "
                    "training diverged"
                )


def _plan_like(checkpoint: ir.Model, target: ir.Model) -> Plan:
    """The plan that leads from `target` to a network of the checkpoint's sizes."""
    value = graph_inputs(checkpoint)[0]
    shape = list(value.shape or [])
    sizes = [shape[i] for i in spatial_positions(value, len(shape)) if isinstance(shape[i], int)]
    given = {name: tensor.shape.numpy() for name, tensor in tensors_by_name(checkpoint).items()}
    own = {name: tensor.shape.numpy() for name, tensor in tensors_by_name(target).items()}
    table = {
        before: after
        for name, shape in given.items()
        if len(shape) > 2 and len(own.get(name, ())) == len(shape)
        for before, after in zip(own[name][2:], shape[2:])
    }
    kept = [name for name, shape in given.items() if len(shape) > 2 and own.get(name) == shape]
    size = InputSize(pretrain=tuple(sizes)) if sizes else None
    return shrink_model(target, input_size=size, kernels=table, keep=kept)


def _input_extents(traced: Traced, chosen, size: InputSize) -> dict[Extent, int]:
    """Pre-train pixels of every input extent; the first input's ratio holds for the others."""
    extents: dict[Extent, int] = {}
    frame: dict[int, tuple[int, int]] = {}
    for value in graph_inputs(traced.model):
        for dim in traced.of(value):
            extent = single_extent(dim)
            if extent is None or extent in extents:
                continue
            if extent.axis in frame:
                target, pretrain = frame[extent.axis]
                extents[extent] = max(1, round(extent.target * pretrain / target))
            elif size.pretrain is not None:
                extents[extent] = axis_size(size.pretrain, extent.axis)
            else:
                extents[extent] = choose_input(traced, chosen, extent)
            if extents[extent] > extent.target:
                raise GraphScaleError(
                    f"input {value.name!r}: a pre-train size of {extents[extent]} is larger than "
                    f"the target's {extent.target}; give a smaller --input-size"
                )
            frame.setdefault(extent.axis, (extent.target, extents[extent]))
    return extents


def _describe_inputs(traced: Traced, solved: Mapping[Extent, int]) -> list[InputPlan]:
    plans = []
    for value in graph_inputs(traced.model):
        target = [size if isinstance(size, int) else str(size) for size in value.shape]
        pretrain = [
            pretrain_size(dim, solved) if moves(dim) else size
            for dim, size in zip(traced.of(value), target, strict=True)
        ]
        plans.append(InputPlan(value.name, target, pretrain))
    return plans
