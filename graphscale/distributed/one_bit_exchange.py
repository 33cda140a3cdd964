"""Average matrices over ranks with one bit per element on the wire, both ways.

In: on each rank the same list of matrices [R, C], its own gradients. Out: on every rank the same
matrices, bit for bit: the ranks' mean after 1-bit quantisation, and the rows' quantisation errors.

Each rank is the home of an equal share of every matrix's rows (fbcunn OneBitDataParallel, where
homes rotated over whole matrices). A rank quantises all rows and sends each to its home; the home
averages what the ranks sent, quantises the mean and sends it to all. A rank sends 2 (N - 1) / N
times the packed size for N ranks, as in a dense ring all-reduce the dense size; the packed size is
a bit per element and two means per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from graphscale.distributed.collectives import all_gather_single
from graphscale.layers.one_bit import one_bit_dequantize, one_bit_quantize

_BITS = 32  # of a word


@dataclass
class Quantized:
    """Rows in one bit per element.

    Attributes:
        words: uint32 [R, ceil(C / 32)], the signs.
        scales: [R, 2], what a set bit and an unset bit stand for; (0, 0) in a row that sends
            nothing, and not finite in a row with NaN or an infinity.
        left: [R, C], the quantisation error.
        active: bool [R], False in a row that sends nothing.
    """

    words: Tensor
    scales: Tensor
    left: Tensor
    active: Tensor

    def residual(self, before: Tensor, finite: Tensor) -> Tensor:
        """The residual after this step; rows that were not sent or not `finite` keep `before`."""
        keep = self.active & finite
        if keep.is_cpu and bool(keep.all()):
            return self.left
        return torch.where(keep[:, None], self.left, before)


def quantize(gradient: Tensor, residual: Tensor) -> Quantized:
    """Quantise gradient + residual, both [R, C].

    A row without a gradient (all zero) sends nothing, so that parameters without a use in a step
    do not lose their residual: DistributedDataParallel drops what is exchanged for them.
    """
    active = _rows_with_gradient(gradient)
    words, scales, left = one_bit_quantize(gradient, residual)
    scales = torch.where(active[:, None], scales, torch.zeros_like(scales))
    return Quantized(words, scales, left, active)


def _rows_with_gradient(gradient: Tensor) -> Tensor:
    """bool [R]: whether a row of gradient [R, C] is not all zero."""
    if not gradient.is_cpu or not gradient.shape[1]:
        return gradient.any(1)
    # On a CPU the first column tells it of nearly all rows, and reading all takes time.
    active = gradient[:, 0] != 0
    if not active.all():
        rest = ~active
        active[rest] = gradient[rest].any(1)
    return active


class Packets:
    """How quantised rows of several matrices lie in one packet of bytes per home.

    Args:
        shapes: (R, C) of each matrix.
        dtype: Of the scales.
        ranks: Number of ranks, N.

    Attributes:
        rows: For each matrix the rows that one home has: R / N, rounded up. The last home may have
            fewer; its packet is filled up with zeros.
        size: Bytes of a packet.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], dtype: torch.dtype, ranks: int) -> None:
        self.shapes = list(shapes)
        self.dtype = dtype
        self.ranks = ranks
        self.rows = [-(-rows // ranks) for rows, _ in shapes]
        words = [-(-columns // _BITS) for _, columns in shapes]
        lengths = [rows * 2 * dtype.itemsize for rows in self.rows]  # scales, then words
        lengths += [rows * count * 4 for rows, count in zip(self.rows, words)]
        self._ends = torch.tensor(lengths).cumsum(0).tolist() if lengths else [0]
        self._lengths = lengths
        self.size = self._ends[-1]

    def own(self, index: int, rank: int) -> slice:
        """The rows of matrix `index` whose home is `rank`."""
        count = self.rows[index]
        return slice(min(rank * count, self.shapes[index][0]), (rank + 1) * count)

    def pack(self, parts: Sequence[Quantized], homes: int) -> Tensor:
        """uint8 [homes, size]; each part has rows for that many homes, the last maybe fewer."""
        device = parts[0].scales.device
        packet = torch.zeros(homes, self.size, dtype=torch.uint8, device=device)
        tensors = [part.scales for part in parts] + [part.words.view(torch.int32) for part in parts]
        for tensor, rows, end, length in zip(tensors, self.rows * 2, self._ends, self._lengths):
            missing = homes * rows - len(tensor)
            padded = F.pad(tensor, (0, 0, 0, missing)) if missing else tensor
            packet[:, end - length : end] = padded.view(torch.uint8).view(homes, length)
        return packet

    def unpack(self, packet: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(words, scales) of each matrix, with the rows of all packets one after another."""
        count = len(self.shapes)
        found = []
        for i, (_, columns) in enumerate(self.shapes):
            scales, words = (
                packet[:, self._ends[at] - self._lengths[at] : self._ends[at]].contiguous()
                for at in (i, count + i)
            )
            rows = len(packet) * self.rows[i]
            scales = scales.view(-1).view(self.dtype).view(rows, 2)
            words = words.view(-1).view(torch.uint32).view(rows, -(-columns // _BITS))
            found.append((words, scales))
        return found


class OneBitExchange:
    """One exchange of a list of matrices. `send` starts it, `finish` ends it.

    The steps of several exchanges must come in the same order on every rank.

    Args:
        shapes, dtype: Of the matrices, the same on every rank.
        group: The process group.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.packets = Packets(shapes, dtype, self.ranks)

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank sends to other ranks in one exchange."""
        return 2 * (self.ranks - 1) * self.packets.size

    def send(self, parts: Sequence[Quantized]) -> None:
        """Start to send every row to its home."""
        packet = self.packets.pack(parts, self.ranks)
        self._received = torch.empty_like(packet)
        self._work = dist.all_to_all_single(self._received, packet, group=self.group, async_op=True)

    def finish(
        self,
        residuals: list[Tensor],
        at_home: Callable[[int, Tensor], Tensor] = lambda index, mean: mean,
        results: Sequence[Tensor] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Average at home, send the result to all, and decode it.

        Args:
            residuals: For each matrix the residual [rows of this home, C] of the mean; is replaced.
            at_home: Is called with (index, mean of the rows at home) and returns what to send
                instead, such as an optimizer's step.
            results: Contiguous tensors [R, C] that the results are written to; by default new ones.

        Returns:
            For each matrix the result [R, C] and, bool [R], whether the row is finite.
        """
        self._work.wait()
        parts = []
        for i, (words, scales) in enumerate(self.packets.unpack(self._received)):
            rows, count = self.packets.rows[i], len(residuals[i])
            by_rank = one_bit_dequantize(words, scales / self.ranks, self.packets.shapes[i][1])
            mean = by_rank[:count]
            for rank in range(1, self.ranks):
                mean += by_rank[rank * rows : rank * rows + count]
            part = quantize(at_home(i, mean), residuals[i])
            finite = torch.isfinite(part.scales).all(1)
            residuals[i] = part.residual(residuals[i], finite)
            parts.append(part)
        packet = self.packets.pack(parts, 1)
        received = packet.new_empty(self.ranks, self.packets.size)
        all_gather_single(received, packet, group=self.group)
        found = []
        for i, (words, scales) in enumerate(self.packets.unpack(received)):
            rows, columns = self.packets.shapes[i]
            words, scales = words[:rows], scales[:rows]
            result = scales.new_empty(rows, columns) if results is None else results[i]
            one_bit_dequantize.write([result], words, scales, columns)
            found.append((result, torch.isfinite(scales).all(1)))
        return found
