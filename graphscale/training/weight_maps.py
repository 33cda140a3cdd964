"""The linear maps by which weights and their optimizer state grow to a larger network.

In: a plan, or the plans of two stages. Out: one `WeightMap` per resized weight. It maps the weight
itself, a momentum (by the same map) or a second moment (by the squared map).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Factor, JoinedFactor, Plan, WeightPlan
from graphscale.core.skeleton import restore
from graphscale.modules.resize_weight import grow_weight


@dataclass(frozen=True)
class WeightMap:
    """The linear map of one weight: growth as by `graphscale.grow`, then a factor per filter.

    Attributes:
        name: Name of the parameter.
        before, after: Its shapes before and after.
        weight: How it is resized; None for a weight that is only scaled.
        resize: The method of interpolation, as for `grow`.
        scale: A factor per filter (first dimension) of the result, or None.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    weight: WeightPlan | None = None
    resize: str = "bilinear"
    scale: torch.Tensor | None = None

    def __call__(self, tensor: torch.Tensor, squared: bool = False) -> torch.Tensor:
        """Map a tensor of shape `before` to one of shape `after`, of the same dtype and device.

        With `squared`, every entry of the matrices and of `scale` is squared. The variances of
        independent taps map so; second moments stay positive and scale as squared gradients do.
        """
        result = tensor.detach()
        if self.weight is not None:
            result = grow_weight(result, self.weight, self.resize, squared)
        if self.scale is not None:
            scale = self.scale.to(tensor.device)
            scale = (scale * scale if squared else scale).view(-1, *[1] * (result.ndim - 1))
            result = (result.double() * scale).to(tensor.dtype)
        return result

    def scaled(self, scale: torch.Tensor) -> WeightMap:
        """The same map with a factor per filter, in place of the one that it has."""
        return replace(self, scale=scale)


def growth_maps(plan: Plan, resize: str, until: Plan | None = None) -> dict[str, WeightMap]:
    """The map of every resized weight, by name, from the plan's pre-train network to the target.

    Args:
        plan: The plan of the present pre-train network.
        resize: The method of interpolation, as for `grow`.
        until: The plan of a later stage of the same target. With it the maps lead to that stage's
            pre-train network directly, without the target in between.

    Raises:
        GraphScaleError: the plans are not of one target, or a weight would become smaller.
    """
    weights = plan.weights if until is None else _between(plan, until)
    return {weight.name: _map(weight, resize) for weight in weights}


def norm_scale(weight: torch.Tensor, weight_map: WeightMap) -> torch.Tensor:
    """The factor per filter (first dimension) by which the grown weight keeps its norm, float64."""
    grown = weight_map(weight.detach().double()).flatten(1).norm(dim=1)
    norms = weight.detach().double().flatten(1).norm(dim=1)
    return torch.where(grown > 0, norms / grown, torch.ones_like(norms))


@dataclass(frozen=True)
class ScaledWithKernel:
    """Names of the tensors to scale with a kernel: its biases, its BatchNorms' statistics."""

    biases: frozenset[str]
    means: frozenset[str]
    variances: frozenset[str]


def kernels_before_batch_norm(plan: Plan) -> dict[str, ScaledWithKernel]:
    """The kernels whose outputs go to BatchNorms and nowhere else, by weight name.

    Scaling such a filter together with its bias and the running statistics does not change the
    network's function.
    """
    found: dict[str, ScaledWithKernel | None] = {}
    for node in restore(plan.target).graph:
        names = [None if value is None else value.name for value in node.inputs]
        if node.op_type != "Conv":
            continue
        uses = list(node.outputs[0].uses())
        follows = [use.node for use in uses if use.node.op_type == "BatchNormalization"]
        if len(follows) != len(uses) or not uses or node.outputs[0].is_graph_output():
            found[names[1]] = None  # also if another layer with this weight has a BatchNorm
            continue
        other = found.get(names[1], ScaledWithKernel(frozenset(), frozenset(), frozenset()))
        if other is not None:
            found[names[1]] = ScaledWithKernel(
                other.biases | set(names[2:3]) - {None, ""},
                other.means | {each.inputs[3].name for each in follows},
                other.variances | {each.inputs[4].name for each in follows},
            )
    return {name: each for name, each in found.items() if each is not None}


def _map(weight: WeightPlan, resize: str) -> WeightMap:
    before, after = tuple(weight.pretrain_shape), tuple(weight.target_shape)
    return WeightMap(weight.name, before, after, weight, resize)


def _between(plan: Plan, until: Plan) -> list[WeightPlan]:
    """Weight plans from the pre-train network of `plan` to that of `until`, as their target."""
    first: Mapping[str, WeightPlan] = {weight.name: weight for weight in plan.weights}
    then: Mapping[str, WeightPlan] = {weight.name: weight for weight in until.weights}
    result = []
    for name in dict.fromkeys((*first, *then)):
        whole = first.get(name, then.get(name))
        small = first[name].factors if name in first else _whole(then[name].factors)
        large = then[name].factors if name in then else _whole(first[name].factors)
        pairs = _pairs(small, large, name)
        if pairs != _whole(pairs):
            result.append(WeightPlan(name, whole.kind, pairs))
    return result


def _whole(factors: list[list[Factor]]) -> list[list[Factor]]:
    """Factors of a weight that is not resized: both sizes are the target's."""

    def whole(factor: Factor) -> Factor:
        if isinstance(factor, JoinedFactor):
            return JoinedFactor(_whole(factor.parts))
        return factor[0], factor[0]

    return [[whole(factor) for factor in dim] for dim in factors]


def _pairs(small: list[list[Factor]], large: list[list[Factor]], name: str) -> list[list[Factor]]:
    """(later pre-train size, earlier pre-train size) of every factor."""
    if [len(dim) for dim in small] != [len(dim) for dim in large]:
        raise _unlike(name)
    return [[_pair(*each, name) for each in zip(*dims)] for dims in zip(small, large)]


def _pair(small: Factor, large: Factor, name: str) -> Factor:
    if isinstance(small, JoinedFactor) and isinstance(large, JoinedFactor):
        return JoinedFactor(_pairs(small.parts, large.parts, name))
    if isinstance(small, JoinedFactor) or isinstance(large, JoinedFactor) or small[0] != large[0]:
        raise _unlike(name)
    if large[1] < small[1]:
        raise GraphScaleError(
            f"weight {name!r} would become smaller in the next stage; order the stages so that "
            "sizes and kernels only grow"
        )
    return large[1], small[1]


def _unlike(name: str) -> GraphScaleError:
    return GraphScaleError(
        f"weight {name!r}: the two plans are not of the same target; shrink one target for all "
        "stages"
    )
