"""What a tensor's dimensions are made of: channels, batch, and spatial sizes (heights and widths).

Each dimension is a tuple of factors in row-major order: a plain dimension has one factor, a
flattened C·H·W has three, a dimension of size one has none. A factor is a fixed size, a spatial
size that follows the input size, the number of offsets between the pixels of one, or the sum of
several dimensions (a Concat of flattened maps), which pooling along flattened maps divides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod


@dataclass(eq=False)
class SpatialSize:
    """One axis of all the tensors that must be equally large there.

    Element-wise operators tie the sizes of their inputs: `tie` merges two into one, and `root` is
    the one that stands for all merged. Sizes are tied only while a graph is analyzed; a finished
    analysis holds nothing but roots.

    Attributes:
        axis: Which spatial axis: 0 for the first, as height.
        target: Pixels in the target network.
    """

    axis: int
    target: int
    _merged_into: SpatialSize | None = field(default=None, repr=False)

    @property
    def root(self) -> SpatialSize:
        """The size that stands for all that are tied to this one."""
        size = self
        while size._merged_into is not None:
            size = size._merged_into
        return size

    def tie(self, other: SpatialSize) -> None:
        """Make both sizes one."""
        mine, theirs = self.root, other.root
        if mine is not theirs:
            theirs._merged_into = mine


# Pre-train pixels of every spatial size.
Sizes = Mapping[SpatialSize, int]


@dataclass(frozen=True)
class DimensionFactor:
    """A factor of a dimension.

    Attributes:
        size: Its size in the target network.
        spatial_size: The spatial size that it is, if it is one.
        parts: The dimensions whose sum it is, if it is a sum.
        pooled: By what the sum is divided, rounded down.
        offsets_of: The spatial size of whose pixels it counts the offsets: 2n - 1 of n pixels.
    """

    size: int
    spatial_size: SpatialSize | None = None
    parts: tuple[Dim, ...] = ()
    pooled: int = 1
    offsets_of: SpatialSize | None = None

    @property
    def moves(self) -> bool:
        """Whether the size follows the input size."""
        follows = self.spatial_size is not None or self.offsets_of is not None
        return follows or any(moves(part) for part in self.parts)

    def pretrain(self, solved: Sizes) -> int:
        """Size in the pre-train network."""
        if self.spatial_size is not None:
            return solved[self.spatial_size]
        if self.offsets_of is not None:
            return 2 * solved[self.offsets_of] - 1
        if self.parts:
            return sum(pretrain_size(part, solved) for part in self.parts) // self.pooled
        return self.size


Dim = tuple[DimensionFactor, ...]
Dims = tuple[Dim, ...]


def fixed(size: int) -> Dim:
    """A dimension of a size that never changes."""
    return () if size == 1 else (DimensionFactor(size),)


def following(size: SpatialSize) -> Dim:
    """A dimension that is a spatial size; a size of one pixel is one in both networks."""
    return (DimensionFactor(size.target, size),) if size.target > 1 else ()


def offsets(size: SpatialSize) -> Dim:
    """A dimension with a place for each offset between two pixels of a spatial size."""
    return (DimensionFactor(2 * size.target - 1, offsets_of=size),) if size.target > 1 else ()


def target_size(dim: Dim) -> int:
    """Size of a dimension in the target network."""
    return prod(factor.size for factor in dim)


def pretrain_size(dim: Dim, solved: Sizes) -> int:
    """Size of a dimension in the pre-train network."""
    return prod(factor.pretrain(solved) for factor in dim)


def moves(dim: Dim) -> bool:
    """Whether a dimension follows the input size."""
    return any(factor.moves for factor in dim)


def single_size(dim: Dim) -> SpatialSize | None:
    """The spatial size of a dimension that has no other factor; None of other dimensions."""
    if len(dim) == 1 and dim[0].spatial_size is not None:
        return dim[0].spatial_size.root
    return None


def sizes_in(dim: Dim) -> Iterable[SpatialSize]:
    """Every spatial size among the factors of a dimension and of its parts."""
    for factor in dim:
        if factor.spatial_size is not None:
            yield factor.spatial_size.root
        if factor.offsets_of is not None:
            yield factor.offsets_of.root
        for part in factor.parts:
            yield from sizes_in(part)


def tie_dims(first: Dim, second: Dim) -> bool:
    """Tie the sizes of two dimensions that must be equal; False where their factors differ."""
    if [factor.size for factor in first] != [factor.size for factor in second]:
        return not (moves(first) or moves(second))
    for one, other in zip(first, second, strict=True):
        if one.spatial_size is not None and other.spatial_size is not None:
            one.spatial_size.tie(other.spatial_size)
        elif one.offsets_of is not None and other.offsets_of is not None:
            one.offsets_of.tie(other.offsets_of)
        elif (one.offsets_of is None) != (other.offsets_of is None):
            return False
        elif one.parts and (one.pooled, len(one.parts)) == (other.pooled, len(other.parts)):
            if not all(tie_dims(a, b) for a, b in zip(one.parts, other.parts)):
                return False
        elif one.moves != other.moves:
            return False
    return True


def total(*parts: Dim) -> Dim:
    """The sum of several dimensions."""
    size = sum(map(target_size, parts))
    return (DimensionFactor(size, parts=parts),) if any(map(moves, parts)) else fixed(size)


def section(dim: Dim, start: int, stop: int) -> Dim | None:
    """The dimension of what lies between two places of a sum.

    None where `dim` is no sum, or a place lies inside a part that follows the input size.
    """
    if len(dim) != 1 or not dim[0].parts or dim[0].pooled > 1:
        return None
    kept: list[Dim] = []
    at = 0  # where the part begins
    for part in dim[0].parts:
        size = target_size(part)
        first, last = max(start - at, 0), min(stop - at, size)
        at += size
        if last <= first:
            continue
        whole = last - first == size
        cut = part if whole else section(part, first, last) if moves(part) else fixed(last - first)
        if cut is None:
            return None
        kept.append(cut)
    return kept[0] if len(kept) == 1 else total(*kept)


def regroup(
    dims: Iterable[Dim],
    shape: Sequence[int],
    cut: Callable[[SpatialSize, int], tuple[DimensionFactor, DimensionFactor]] | None = None,
) -> Dims | None:
    """The dimensions of a tensor reshaped to `shape`; None where a spatial size would be cut.

    A reshape keeps the numbers in row-major order, and so the factors: [C, H, W] becomes [C·H·W]
    with the factors C, H, W. A fixed size may be cut in two, as channels into groups. A spatial
    size is cut by `cut`, from the size and the number of its first piece into two factors.
    """
    factors = [factor for dim in dims for factor in dim]
    result = []
    for size in shape:
        # Take factors from the front until their product is the size of this dimension.
        dim: list[DimensionFactor] = []
        rest = size
        while rest > 1:
            if not factors:
                return None
            factor = factors.pop(0)
            if rest % factor.size == 0:
                dim.append(factor)
                rest //= factor.size
            elif not factor.moves and factor.size % rest == 0:
                # The factor reaches into the next dimension: put its remainder back.
                dim.append(DimensionFactor(rest))
                factors.insert(0, DimensionFactor(factor.size // rest))
                rest = 1
            elif cut is not None and factor.spatial_size is not None and factor.size % rest == 0:
                first, second = cut(factor.spatial_size.root, rest)
                dim.append(first)
                factors.insert(0, second)
                rest = 1
            else:
                return None
        result.append(tuple(dim))
    return tuple(result) if not factors else None
