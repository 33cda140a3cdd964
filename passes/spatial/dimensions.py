"""What a tensor's dimensions are made of: channels, batch, and extents (heights and widths).

Each dimension is a tuple of atoms in row-major order: a plain dimension has one atom, a flattened
C·H·W has three, a dimension of size one has none. An atom is a fixed size, an extent that the input
size decides, or the sum of several dimensions (a Concat of flattened maps).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import onnx_ir as ir


@dataclass(eq=False)
class Extent:
    """One axis of all the tensors that must have equal extents there.

    Element-wise operators tie the extents of their inputs: `tie` merges two into one, and `root`
    is the one that stands for all merged.

    Attributes:
        axis: Which spatial axis: 0 for the first, as height.
        target: Pixels in the target network.
        producers, consumers: The links that end and start here.
        anchored: Whether something besides links (an output, an interface) fixes the size.
    """

    axis: int
    target: int
    producers: list = field(default_factory=list)
    consumers: list = field(default_factory=list)
    anchored: bool = False
    interface: bool = False
    _merged_into: Extent | None = None

    @property
    def root(self) -> Extent:
        """The extent that stands for all that are tied to this one."""
        extent = self
        while extent._merged_into is not None:
            extent = extent._merged_into
        return extent

    def tie(self, other: Extent) -> None:
        """Make both extents one."""
        mine, theirs = self.root, other.root
        if mine is theirs:
            return
        theirs._merged_into = mine
        mine.producers += theirs.producers
        mine.consumers += theirs.consumers
        mine.anchored |= theirs.anchored
        mine.interface |= theirs.interface


@dataclass(frozen=True)
class Atom:
    """A factor of a dimension: `size` in the target network, and what decides it."""

    size: int
    extent: Extent | None = None
    parts: tuple[Dim, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether the size follows the input size."""
        return self.extent is not None or any(moves(part) for part in self.parts)

    def pretrain(self, solved: Mapping[Extent, int]) -> int:
        """Size in the pre-train network."""
        if self.extent is not None:
            return solved[self.extent.root]
        if self.parts:
            return sum(pretrain_size(part, solved) for part in self.parts)
        return self.size


Dim = tuple[Atom, ...]
Dims = tuple[Dim, ...]


def fixed(size: int) -> Dim:
    """A dimension of a size that never changes."""
    return () if size == 1 else (Atom(size),)


def target_size(dim: Dim) -> int:
    """Size of a dimension in the target network."""
    return prod(atom.size for atom in dim)


def pretrain_size(dim: Dim, solved: Mapping[Extent, int]) -> int:
    """Size of a dimension in the pre-train network."""
    return prod(atom.pretrain(solved) for atom in dim)


def moves(dim: Dim) -> bool:
    """Whether a dimension follows the input size."""
    return any(atom.moves for atom in dim)


def single_extent(dim: Dim) -> Extent | None:
    """The extent that a dimension is, if it is nothing else."""
    return dim[0].extent.root if len(dim) == 1 and dim[0].extent is not None else None


def tie_dims(first: Dim, second: Dim) -> bool:
    """Tie the extents of two dimensions that must be equal; False where their factors differ."""
    if [atom.size for atom in first] != [atom.size for atom in second]:
        return not (moves(first) or moves(second))
    for one, other in zip(first, second, strict=True):
        if one.extent is not None and other.extent is not None:
            one.extent.tie(other.extent)
        elif one.parts and other.parts and len(one.parts) == len(other.parts):
            if not all(tie_dims(a, b) for a, b in zip(one.parts, other.parts)):
                return False
        elif one.moves != other.moves:
            return False
    return True


def regroup(dims: Iterable[Dim], shape: Sequence[int]) -> Dims | None:
    """The dimensions of a tensor reshaped to `shape`; None where an extent would have to be cut."""
    atoms = [atom for dim in dims for atom in dim]
    result = []
    for size in shape:
        dim: list[Atom] = []
        rest = size
        while rest > 1:
            if not atoms:
                return None
            atom = atoms.pop(0)
            if rest % atom.size == 0:
                dim.append(atom)
                rest //= atom.size
            elif not atom.moves and atom.size % rest == 0:
                dim.append(Atom(rest))
                atoms.insert(0, Atom(atom.size // rest))
                rest = 1
            else:
                return None
        result.append(tuple(dim))
    return tuple(result) if not atoms else None


@dataclass(frozen=True)
class SpatialWeight:
    """A weight whose dimensions hold extents: a fully-connected interface, or a position table.

    Attributes:
        value: The initializer, or the output of the Constant node, that holds the weight.
        dims: Its dimensions.
        summed: Whether the extents are summed over (an interface: amplitude corrected when resized)
            or stand for positions (a table: values are interpolated as they are).
        node: The node that reads it.
    """

    value: ir.Value
    dims: Dims
    summed: bool
    node: ir.Node
