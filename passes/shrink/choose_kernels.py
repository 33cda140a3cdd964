"""Give each convolution its pre-train kernel, or the reason why it keeps its own.

In go the analysis and the user's wishes, out come the kernels of every convolution. Convolutions
that share a weight get the same kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable, pretrain_size
from graphscale.core.node_names import node_name
from graphscale.passes.graph.fixed_weights import is_fixed
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analysis import SpatialAnalysis
from graphscale.passes.spatial.mapping import Parameters, SpatialMapping
from graphscale.passes.spatial.registry import (
    ConvolutionRule,
    convolution_rule,
    product_rule,
)

_Kernel = tuple[int, ...]
NONE_KNOWN: Mapping[str, _Kernel] = MappingProxyType({})
# A kernel, and why it is the target's.
_Choice = tuple[_Kernel, str | None]


@dataclass(frozen=True)
class ChosenKernels:
    """The kernels of every convolution, by node in the order of the graph.

    Attributes:
        target, pretrain: Taps per spatial dimension.
        left_unscaled: Why a convolution keeps its kernel.
        goals: The parameters of mappings whose kernel changes: kernel and dilation are those of the
            pre-train network, all else is the target's still.
    """

    target: Mapping[ir.Node, _Kernel]
    pretrain: Mapping[ir.Node, _Kernel]
    left_unscaled: Mapping[ir.Node, str]
    goals: Mapping[SpatialMapping, Parameters]

    def goal(self, mapping: SpatialMapping) -> Parameters:
        """What is decided of a mapping's parameters."""
        return self.goals.get(mapping, mapping.target)


def choose_kernels(
    analysis: SpatialAnalysis,
    table: KernelTable | None = None,
    keep: Sequence[str] = (),
    known: Mapping[str, _Kernel] = NONE_KNOWN,
) -> ChosenKernels:
    """Choose kernels by `table`, the paper's and the rule beyond it.

    Args:
        analysis: Of the target network.
        table: Target kernel size -> pre-train size; sizes that it lacks follow the paper's table.
        keep: Patterns (as in file names) of the names of nodes or weights to leave alone.
        known: Pre-train kernels of some weights by name, as a checkpoint has them; no table is
            asked for these.

    A kernel that covers its whole map becomes as large as the map in the pre-train network, which
    `solve_geometry` decides: it is a fully-connected interface.

    Raises:
        GraphScaleError: a pattern of `keep` fits no layer and no layer's weight.
    """
    _check_patterns(analysis.model, keep)
    target = {
        node: tuple(analysis.shape(node.inputs[1])[2:])
        for node in analysis.model.graph
        if convolution_rule(node) is not None
    }
    choices = {
        node: _choose(node, kernel, analysis, table, keep, known) for node, kernel in target.items()
    }
    choices |= _shared_choices(choices, target)
    goals = {
        mapping: mapping.target.with_kernel(choices[node][0][mapping.dimension - 2], table)
        for node, kernel in target.items()
        if choices[node][0] != kernel
        for mapping in analysis.mappings.get(node, ())
    }
    return ChosenKernels(
        target=target,
        pretrain={node: kernel for node, (kernel, _) in choices.items()},
        left_unscaled={node: reason for node, (_, reason) in choices.items() if reason is not None},
        goals=goals,
    )


def _check_patterns(model: ir.Model, keep: Sequence[str]) -> None:
    """Raise for a pattern that fits no layer, neither by its name nor by its weight's."""
    names: set[str] = set()
    for node in model.graph if keep else ():
        rule = product_rule(node)
        index = None if rule is None else rule.weight_input(node)
        if index is not None:
            names |= {node_name(node), weight_source(node.inputs[index]).name}
        elif isinstance(rule, ConvolutionRule):
            names |= {node_name(node), node.inputs[1].name}
    for pattern in keep:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise GraphScaleError(
                f"{model.meta.get('source', 'the model')}: no layer or weight has the name "
                f"{pattern!r} of --keep; names are listed by --dry-run --json"
            )


def _choose(
    node: ir.Node,
    target: _Kernel,
    analysis: SpatialAnalysis,
    table: KernelTable | None,
    keep: Sequence[str],
    known: Mapping[str, _Kernel],
) -> _Choice:
    covered = node in analysis.covering
    reason = _reason_to_keep(node, target, keep)
    if reason is not None:
        return target, None if covered else reason
    found = known.get(weight_source(node.inputs[1]).name)
    if found is not None:
        return found, "the checkpoint's kernel is as large" if found == target else None
    mappings = analysis.mappings.get(node, ())
    kernel = list(target)
    for mapping in mappings:
        kernel[mapping.dimension - 2] = mapping.target.smaller_kernel(table)
    if tuple(kernel) == target and not covered:
        reason = _reason_unchanged(target, mappings, table)
    return tuple(kernel), reason


def _shared_choices(
    choices: Mapping[ir.Node, _Choice], target: Mapping[ir.Node, _Kernel]
) -> dict[ir.Node, _Choice]:
    """The choices of convolutions that share a weight: its kernel stays where they disagree."""
    users: dict[ir.Value, list[ir.Node]] = {}
    for node in choices:
        held = weight_source(node.inputs[1])
        if held is not None:
            users.setdefault(held, []).append(node)
    return {
        node: (target[node], "it shares its weight with a layer that keeps it")
        for nodes in users.values()
        if len({choices[node][0] for node in nodes}) > 1
        for node in nodes
    }


def _reason_to_keep(node: ir.Node, target: _Kernel, keep: Sequence[str]) -> str | None:
    """Why a convolution keeps its kernel whatever the table says, if there is a reason."""
    weight = weight_source(node.inputs[1])
    if weight is None:
        return "its weight is computed while the network runs"
    for pattern in keep:
        if fnmatchcase(node_name(node), pattern) or fnmatchcase(weight.name, pattern):
            return f"kept by --keep {pattern}"
    if is_fixed(weight):
        return "nothing trains its kernel"
    if all(size == 1 for size in target):
        return "its kernel is one pixel"
    return convolution_rule(node).why_kept


def _reason_unchanged(
    target: _Kernel, mappings: Sequence[SpatialMapping], table: KernelTable | None
) -> str:
    """Why the table leaves a kernel as it is."""
    if not mappings:
        return "its map does not follow the input size"
    if all(pretrain_size(size, table) == size for size in target):
        return "its kernel has no smaller one in the table"
    return "its kernel is no larger than its stride"
