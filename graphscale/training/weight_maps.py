"""The linear maps that carry weights, and what optimizers remember of them, to a larger network.

In: a plan (or the plans of two stages). Out: one `WeightMap` per weight that is resized, which maps
the weight itself, a momentum (the same map) or a second moment (the squared map).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphscale.convert.tensors import to_torch
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Factor, JoinedFactor, Plan, WeightPlan
from graphscale.core.resize_weights import grow_tensor
from graphscale.core.skeleton import restore


@dataclass(frozen=True)
class WeightMap:
    """The linear map of one weight; what `graphscale.grow` does to it, times a factor per row.

    Attributes:
        name: The parameter.
        before, after: Its shapes.
        weight: How it is resized, or None for a weight that is only scaled.
        resize: The method, as for `grow`.
        scale: A factor per row (first dimension) of the result, or None.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    weight: WeightPlan | None = None
    resize: str = "bilinear"
    scale: torch.Tensor | None = None

    def __call__(self, tensor: torch.Tensor, squared: bool = False) -> torch.Tensor:
        """The mapped tensor, in its dtype and on its device.

        With `squared`, each matrix entry and scale is squared: that is how the variances of
        independent taps map, so second moments stay positive and follow the amplitude squared.
        """
        result = tensor.detach()
        if self.weight is not None:
            array = TorchTensor(result.cpu())
            grown = grow_tensor(array, self.weight, self.resize, squared=squared)
            result = to_torch(grown).to(tensor.device)
        if self.scale is not None:
            scale = self.scale.to(tensor.device)
            scale = (scale * scale if squared else scale).view(-1, *[1] * (result.ndim - 1))
            result = (result.double() * scale).to(tensor.dtype)
        return result

    def scaled(self, scale: torch.Tensor) -> WeightMap:
        """The same map, times a factor per row."""
        return replace(self, scale=scale)


def growth_maps(plan: Plan, resize: str, until: Plan | None = None) -> dict[str, WeightMap]:
    """The map of every resized weight, from the plan's pre-train network to its target.

    With `until`, the plan of a later stage of the same target, the maps lead to the pre-train
    network of that plan: both sizes come from the plans, so a kernel of 2 grows to 3 directly.

    Raises:
        GraphScaleError: the plans are not of one target, or a weight would become smaller.
    """
    weights = plan.weights if until is None else _between(plan, until)
    return {weight.name: _map(weight, resize) for weight in weights}


def norm_scale(weight: torch.Tensor, weight_map: WeightMap) -> torch.Tensor:
    """The factor per filter (first dimension) that gives the mapped weight its old norm."""
    grown = weight_map(weight.detach().double()).flatten(1).norm(dim=1)
    norms = weight.detach().double().flatten(1).norm(dim=1)
    return torch.where(grown > 0, norms / grown, torch.ones_like(norms))


@dataclass(frozen=True)
class ScaledWithKernel:
    """What follows a convolution's scale: its biases, and the statistics of its BatchNorms."""

    biases: frozenset[str]
    means: frozenset[str]
    variances: frozenset[str]


def kernels_before_batch_norm(plan: Plan) -> dict[str, ScaledWithKernel]:
    """The kernels whose outputs go to a BatchNorm and nowhere else, by weight name.

    Scaling such a filter, its bias and its running statistics together leaves the network's
    function as it is.
    """
    found: dict[str, ScaledWithKernel | None] = {}
    for node in restore(plan.target).graph:
        names = [None if value is None else value.name for value in node.inputs]
        if node.op_type != "Conv":
            continue
        uses = list(node.outputs[0].uses())
        follows = [use.node for use in uses if use.node.op_type == "BatchNormalization"]
        if len(follows) != len(uses) or not uses or node.outputs[0].is_graph_output():
            found[names[1]] = None  # the weight may be shared with a layer that is normalized
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
    """Weight plans whose 'target' is the pre-train network of `until`."""
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
    """Factors that keep the target's sizes, as of a weight that a stage does not resize."""

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
