"""Give each convolution its pre-train kernel, or the reason why it keeps its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import onnx_ir as ir

from graphscale.core.kernel_sizes import pretrain_dilation, pretrain_size
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.links import Link, Transposed, Window
from graphscale.passes.spatial.traced import CONVOLUTIONS, Traced


@dataclass
class Kernels:
    """The kernels of every convolution, by node.

    Attributes:
        target, pretrain: Taps per spatial position.
        left_unscaled: Why a convolution keeps its kernel.
    """

    target: dict[ir.Node, tuple[int, ...]] = field(default_factory=dict)
    pretrain: dict[ir.Node, tuple[int, ...]] = field(default_factory=dict)
    left_unscaled: dict[ir.Node, str] = field(default_factory=dict)


def node_name(node: ir.Node) -> str:
    """The node's name, or its first output's where it has none."""
    return node.name or node.outputs[0].name


def choose_kernels(
    traced: Traced, table: Mapping[int, int] | None = None, keep: Sequence[str] = ()
) -> Kernels:
    """Choose kernels by `table` and the paper's; set them as the links' goals.

    `keep` holds patterns (as in file names) of node or weight names to leave alone. A kernel that
    covers its whole map is decided by the extents later: it is a fully-connected interface.
    """
    kernels = Kernels()
    for node in traced.model.graph:
        if node.op_type not in CONVOLUTIONS:
            continue
        target = traced.shape(node.inputs[1])[2:]
        links = {link.position: link for link in traced.links.get(node, [])}
        covered = traced.covering.get(node, {})
        reason = _reason(node, target, links, keep)
        if reason is None:
            pretrain = tuple(
                _scaled(size, links.get(position), table) for position, size in enumerate(target)
            )
            if pretrain == target and not covered:
                reason = _unchanged(target, links, table)
        else:
            pretrain = target
        kernels.target[node], kernels.pretrain[node] = tuple(target), pretrain
        if reason is not None and not covered:
            kernels.left_unscaled[node] = reason
        for position, link in links.items():
            link.goal = replace(
                link.target,
                kernel=pretrain[position],
                dilation=pretrain_dilation(
                    link.target.kernel, link.target.dilation, pretrain[position], table
                ),
            )
    return kernels


def share_kernels(traced: Traced, kernels: Kernels) -> None:
    """Convolutions that share one weight keep it where they disagree about its kernel."""
    users: dict[ir.Value, list[ir.Node]] = {}
    for node in kernels.target:
        users.setdefault(weight_source(node.inputs[1]), []).append(node)
    for nodes in users.values():
        if len({kernels.pretrain[node] for node in nodes}) > 1:
            for node in nodes:
                keep_kernel(
                    traced, kernels, node, "it shares its weight with a layer that keeps it"
                )


def keep_kernel(traced: Traced, kernels: Kernels, node: ir.Node, reason: str) -> None:
    """Leave a convolution's kernel as it is in the target."""
    kernels.pretrain[node] = kernels.target[node]
    kernels.left_unscaled[node] = reason
    for link in traced.links.get(node, []):
        link.goal = link.target


def _reason(
    node: ir.Node, target: tuple[int, ...], links: dict[int, Link], keep: Sequence[str]
) -> str | None:
    weight = weight_source(node.inputs[1])
    if weight is None:
        return "its weight is computed while the network runs"
    for pattern in keep:
        if fnmatchcase(node_name(node), pattern) or fnmatchcase(weight.name, pattern):
            return f"kept by --keep {pattern}"
    if all(size == 1 for size in target):
        return "its kernel is one pixel"
    return None


def _scaled(size: int, link: Link | None, table: Mapping[int, int] | None) -> int:
    if link is None:
        return size
    numbers = link.target
    chosen = pretrain_size(size, table)
    if isinstance(numbers, Window | Transposed) and size <= numbers.stride and chosen < size:
        return size  # nothing overlaps: a smaller kernel would skip pixels
    if isinstance(numbers, Transposed) and chosen < numbers.stride:
        return size
    return chosen


def _unchanged(
    target: tuple[int, ...], links: dict[int, Link], table: Mapping[int, int] | None
) -> str:
    if not links:
        return "its map does not follow the input size"
    if all(pretrain_size(size, table) == size for size in target):
        return "its kernel has no smaller one in the table"
    return "its kernel is no larger than its stride"
