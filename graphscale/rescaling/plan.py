"""Plan how a network is rescaled: the passes in their order.

In goes a target model with the user's wishes, out comes its `Plan`. `prepare` and then `derive` do
the work for both `plan_model` and `shrink_model`, on a copy of the graph unless the caller gives
its model away. No weight is copied or read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphscale.core.arguments import texts
from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable, kernel_table
from graphscale.core.node_names import forget_given_names
from graphscale.core.plan import InputPlan, Plan
from graphscale.core.resize_weights import shrink_tensor
from graphscale.core.skeleton import strip
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.graph.infer_shapes import InferredShapes, infer_shapes
from graphscale.passes.graph.weight_source import set_tensor, tensor_of
from graphscale.passes.normalize.dequantize_weights import DequantizeWeights
from graphscale.passes.normalize.fold_constants import FoldConstants
from graphscale.passes.normalize.gather_offsets import GatherOffsets
from graphscale.passes.normalize.gather_rolls import GatherRolls
from graphscale.passes.normalize.normalize import normalize
from graphscale.passes.normalize.resolve_static_ifs import ResolveStaticIfs
from graphscale.passes.normalize.select_branches import SelectBranches, lift_branch_weights
from graphscale.passes.normalize.split_constants import MergeConstants, SplitConstants
from graphscale.passes.normalize.unroll_loops import UnrollLoops
from graphscale.passes.normalize.whole_tables import WholeTables
from graphscale.passes.shrink.choose_input import choose_input
from graphscale.passes.shrink.choose_kernels import NONE_KNOWN, ChosenKernels, choose_kernels
from graphscale.passes.shrink.describe_layers import describe_layers
from graphscale.passes.shrink.plan_grids import plan_grids
from graphscale.passes.shrink.plan_weights import plan_weights
from graphscale.passes.shrink.shrink_graph import ShrinkGraph, check_shapes
from graphscale.passes.shrink.solve_geometry import solve_geometry
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.analyze import analyze
from graphscale.passes.spatial.analyzer import OWN_SIZE, SMALLEST_WINDOW
from graphscale.passes.spatial.dimensions import SpatialSize, moves, pretrain_size, single_size
from graphscale.passes.spatial.geometry import Geometry, frames
from graphscale.rescaling.input_size import InputSize, Size, axis_size, has_fixed_size, input_shapes

_TOLERANCE = 0.15  # how far maps that are cut into windows may be from the sizes that are due


@dataclass(frozen=True)
class Target:
    """A target network made ready to be analyzed.

    Attributes:
        model: A graph of its own, in normal form, whose integer constants have one reader each; the
            weights are those of the model it was made from.
        size: The input sizes that the user gave.
        shapes: Shapes of the graph inputs.
        resolved_ifs, folded, skeleton: As `resolved_ifs`, `folded` and `target` of `Plan`.
        copies: What `SplitConstants` has made, for `MergeConstants`.
    """

    model: ir.Model
    size: InputSize
    shapes: Mapping[str, Sequence[int]]
    resolved_ifs: list[str]
    folded: list[str]
    skeleton: str
    copies: Mapping[ir.Value, ir.Value]


def plan_model(
    model: ir.Model,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    known: Mapping[str, tuple[int, ...]] = NONE_KNOWN,
    copy: bool = True,
) -> Plan:
    """Plan what `shrink_model` would do to `model`; arguments and errors as there.

    `known` is that of `choose_kernels`, `copy` that of `prepare`.
    """
    kernels, keep = kernel_table(kernels), texts("keep", keep)
    _, plan = derive(prepare(model, input_size, copy), kernels, keep, known=known)
    return plan


def prepare(model: ir.Model, input_size: Size = None, copy: bool = True) -> Target:
    """Make a target network ready to be analyzed: normalize it and fold its computed weights.

    Args:
        model: The target network.
        input_size: As for `shrink_model`.
        copy: Work on a copy of the graph. Without, `model` itself is changed: its caller has no
            further use for it, and the time of the copy is saved.

    Raises:
        GraphScaleError: the input size does not fit the model, or a node cannot be computed.
    """
    source = model.meta.get("source", "the model")
    if copy:
        model = model.clone()
    model.meta["source"] = source
    normalize(model)
    size = InputSize.parse(input_size, has_fixed_size(model))
    shapes = input_shapes(model, size)
    resolved_ifs = ResolveStaticIfs(shapes)(model).names
    folded = [*DequantizeWeights()(model).names, *FoldConstants()(model).names]
    lift_branch_weights(model)
    skeleton = strip(model)
    SelectBranches()(model)
    UnrollLoops()(model)
    GatherRolls(shapes)(model)
    GatherOffsets(shapes)(model)
    WholeTables(shapes)(model)
    split = SplitConstants()
    split(model)
    return Target(model, size, shapes, resolved_ifs, folded, skeleton, split.copies)


def derive(
    target: Target,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    scale_windows: bool = True,
    known: Mapping[str, tuple[int, ...]] = NONE_KNOWN,
) -> tuple[ir.Model, Plan]:
    """Turn the target's model into the pre-train network; returns it with its plan.

    The weights that change shape become the target's, resized; their numbers are computed when they
    are read.

    Raises:
        GraphScaleError: the model cannot be rescaled; names the node.
    """
    model = target.model
    analysis, chosen, geometry = _solve(target, kernels, keep, scale_windows, known)
    weights = plan_weights(analysis, chosen, geometry)
    plan = Plan(
        inputs=_describe_inputs(analysis, geometry),
        layers=describe_layers(analysis, chosen, geometry),
        weights=list(weights.values()),
        grids=plan_grids(analysis, geometry),
        folded=target.folded,
        resolved_ifs=target.resolved_ifs,
        target=target.skeleton,
    )
    resized = {
        value: shrink_tensor(tensor_of(value), weight, "bilinear")
        for value, weight in weights.items()
    }
    for value, tensor in resized.items():
        set_tensor(value, _zeros(tensor))  # the checks below read shapes only
    changed = ShrinkGraph(analysis, geometry)(model).names
    shapes = {value.name: geometry.shape(analysis.of(value)) for value in graph_inputs(model)}
    check_shapes(analysis, geometry, shapes)
    for value, tensor in resized.items():
        set_tensor(value, tensor)
    merged = MergeConstants(target.copies)(model).names
    plan.constants = [name for name in changed if name not in merged]
    forget_given_names(model)
    return model, plan


def _solve(
    target: Target,
    kernels: KernelTable | None,
    keep: Sequence[str],
    scale_windows: bool,
    known: Mapping[str, tuple[int, ...]],
) -> tuple[SpatialAnalysis, ChosenKernels, Geometry]:
    """The analysis, the kernels and the geometry of the pre-train network.

    Windows that a map is cut into keep their size. Where they do not divide the sizes that are due,
    as in Swin's maps of 56, 28 and 14 pixels with windows of 7, their number is kept instead, if
    `scale_windows` allows it.
    """
    inferred = infer_shapes(target.model, target.shapes)

    def solve(scaled: bool) -> tuple[SpatialAnalysis, ChosenKernels, Geometry]:
        analysis = analyze(target.model, inferred, scale_windows=scaled)
        chosen = choose_kernels(analysis, kernels, keep, known)
        if not chosen.target:
            source = target.model.meta["source"]
            raise GraphScaleError(f"{source}: holds no convolution; there is nothing to shrink")
        try:
            sizes = _input_sizes(analysis, chosen, target.size)
            return analysis, chosen, solve_geometry(analysis, chosen, sizes)
        except GraphScaleError:
            if target.size.pretrain is not None:
                raise
            # Blocks behind all strides may need a size that these and the blocks divide.
            with suppress(GraphScaleError):
                sizes = _input_sizes(analysis, chosen, target.size, divides=True)
                return analysis, chosen, solve_geometry(analysis, chosen, sizes)
            raise

    found, refusal = None, None
    try:
        found = solve(scaled=False)
    except GraphScaleError as error:
        refusal = error
    if scale_windows and (found is None or not _windows_fit(found[0], found[2])):
        try:
            return solve(scaled=True)
        except GraphScaleError:
            pass  # the refusal of windows that keep their size says more
    return found or _solve_at_full_size(target, inferred, kernels, keep, refusal)


def _solve_at_full_size(
    target: Target,
    inferred: InferredShapes,
    kernels: KernelTable | None,
    keep: Sequence[str],
    refusal: GraphScaleError,
) -> tuple[SpatialAnalysis, ChosenKernels, Geometry]:
    """What `_solve` gives, where the user wants images of the target's size.

    Then only kernels become smaller, and it does not matter where sizes cannot be followed, as long
    as these stay as they are.

    Raises:
        GraphScaleError: `refusal`, the reason why other sizes are not possible.
    """
    if target.size.pretrain is None:
        raise refusal
    analysis = analyze(target.model, inferred, keeps_sizes=True)
    chosen = choose_kernels(analysis, kernels, keep)
    sizes = _input_sizes(analysis, chosen, target.size)
    if any(size.target != pixels for size, pixels in sizes.items()):
        raise refusal
    with suppress(GraphScaleError):
        geometry = solve_geometry(analysis, chosen, sizes)
        if all(geometry.sizes[size] == size.target for size in analysis.unfollowed):
            return analysis, chosen, geometry
    raise GraphScaleError(str(refusal).replace(OWN_SIZE, ""))


def _windows_fit(analysis: SpatialAnalysis, geometry: Geometry) -> bool:
    """Whether the maps that are cut into windows have about the sizes that the input asks for."""
    frame = frames(geometry.inputs)
    for node, mappings in analysis.mappings.items():
        for mapping in mappings:
            window = mapping.target.divisor(mapping.source.target) if mapping.source else 1
            if node.op_type != "Reshape" or window < SMALLEST_WINDOW:
                continue
            target, pretrain = frame[mapping.axis]
            due = mapping.source.target * pretrain / target
            if abs(geometry.sizes[mapping.source] - due) > _TOLERANCE * due:
                return False
    return True


def _zeros(like: ir.TensorProtocol) -> ir.Tensor:
    """Zeros of a tensor's type and shape, which take no memory."""
    zero = np.zeros((), like.dtype.numpy())
    return ir.Tensor(np.broadcast_to(zero, like.shape.numpy()), like.dtype, name=like.name)


def _input_sizes(
    analysis: SpatialAnalysis, kernels: ChosenKernels, given: InputSize, divides: bool = False
) -> dict[SpatialSize, int]:
    """Pre-train pixels of every input's sizes; the first input's ratio holds for the others.

    `divides` is that of `choose_input`.
    """
    sizes: dict[SpatialSize, int] = {}
    frame: dict[int, tuple[int, int]] = {}
    for value in graph_inputs(analysis.model):
        for dim in analysis.of(value):
            size = single_size(dim)
            if size is None or size in sizes:
                continue
            if size.axis in frame:
                target, pretrain = frame[size.axis]
                sizes[size] = max(1, round(size.target * pretrain / target))
            elif given.pretrain is not None:
                sizes[size] = axis_size(given.pretrain, size.axis)
            else:
                sizes[size] = choose_input(analysis, kernels, size, divides)
            if sizes[size] > size.target:
                raise GraphScaleError(
                    f"input {value.name!r}: a pre-train size of {sizes[size]} is larger than the "
                    f"target's {size.target}; give a smaller --input-size"
                )
            frame.setdefault(size.axis, (size.target, sizes[size]))
    return sizes


def _describe_inputs(analysis: SpatialAnalysis, geometry: Geometry) -> list[InputPlan]:
    """The shapes of the graph inputs in both networks."""
    plans = []
    for value in graph_inputs(analysis.model):
        target = [size if isinstance(size, int) else str(size) for size in value.shape]
        pretrain = [
            pretrain_size(dim, geometry.sizes) if moves(dim) else size
            for dim, size in zip(analysis.of(value), target, strict=True)
        ]
        shape, spatial = list(analysis.shape(value)), list(analysis.spatial[value])
        plans.append(InputPlan(value.name, target, pretrain, shape, spatial))
    return plans
