"""The pre-train size of each target kernel: Table 1 of arXiv 1610.03623, and a rule for others."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphscale.core.arguments import whole_number, wrong
from graphscale.core.errors import GraphScaleError

# Target kernel size -> pre-train size along an axis.
KernelTable = Mapping[int, int]

TABLE_1: KernelTable = {1: 1, 3: 2, 5: 3, 7: 5, 11: 7}

_WANTED_RATIO = 1.5
# Cost of a change between odd and even, as a difference of log ratios: an odd kernel has a centre
# pixel, an even one moves the sampling grid by half a pixel. 9 becomes 7 rather than 6.
_PARITY_COST = 0.16


def pretrain_size(target: int, table: KernelTable | None = None) -> int:
    """The pre-train kernel size, along one axis, of a target kernel of `target` taps.

    Sizes in `table` (target to pre-train), then those of the paper's Table 1, are looked up; any
    other gets the size whose ratio is nearest to 1.5, with a preference for the target's parity.
    """
    if table and target in table:
        return table[target]
    if target in TABLE_1:
        return TABLE_1[target]
    ideal = target / _WANTED_RATIO  # the best size is one of the nearest two of each parity
    sizes = range(max(1, math.floor(ideal) - 1), min(target, math.ceil(ideal) + 1) + 1)
    return min(sizes, key=lambda size: (_cost(target, size), size))


def pretrain_dilation(
    target: int, dilation: int, size: int, table: KernelTable | None = None
) -> int:
    """The dilation at which `size` taps replace `target` taps at `dilation`.

    The number of pixels that the kernel spans is scaled as an undilated kernel of that size would
    be.
    """
    if dilation == 1 or size == 1:
        return dilation
    if size == target:
        return dilation
    spanned = (target - 1) * dilation + 1
    wanted = pretrain_size(spanned, table)
    nearest = (wanted - 1) // (size - 1)
    # Of two equally near dilations the one that keeps the parity of the spanned size.
    return min(
        (max(1, nearest), nearest + 1),
        key=lambda d: (abs((size - 1) * d + 1 - wanted), ((size - 1) * d + 1 - spanned) % 2),
    )


def kernel_table(given: KernelTable | None) -> dict[int, int]:
    """The table that a caller of shrink gave as `kernels`; empty for None.

    Raises:
        GraphScaleError: it is no mapping of positive numbers, or a second one is the larger.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise wrong("kernels", given, "a dict of target and pre-train sizes, as {3: 2, 5: 3}")
    table = {}
    for target, pretrain in given.items():
        size = whole_number("kernels: a target size", target, 1)
        table[size] = whole_number(f"kernels[{size}]", pretrain, 1, size)
    return table


def parse_kernel_table(text: str) -> dict[int, int]:
    """Parse a table such as '3:2,5:3', or with one 'target:pretrain' or 'target pretrain' a line.

    Raises:
        GraphScaleError: an entry is not two positive numbers, the second is the larger, or a target
            size has two pre-train sizes.
    """
    table = {}
    lines = [line.split("#")[0] for line in text.splitlines()]
    for entry in ",".join(lines).split(","):
        entry = entry.strip()
        if not entry:
            continue
        parts = entry.replace(":", " ").split()
        if len(parts) != 2 or not all(part.isdecimal() and len(part) < 10 for part in parts):
            raise GraphScaleError(
                f"kernel table entry {entry!r} is not 'target:pretrain', as in 3:2"
            )
        target, pretrain = map(int, parts)
        if not 1 <= pretrain <= target:
            raise GraphScaleError(
                f"kernel table entry {entry!r}: give a pre-train size between 1 and {target}"
            )
        if table.setdefault(target, pretrain) != pretrain:
            raise GraphScaleError(
                f"kernel table: {target} becomes both {table[target]} and {pretrain}; give each "
                "target size one pre-train size"
            )
    return table


def _cost(target: int, size: int) -> float:
    return abs(math.log(target / size / _WANTED_RATIO)) + _PARITY_COST * ((target - size) % 2)
