"""Bytes on the wire for the gradients of ResNet-18: python benchmarks/one_bit_bytes.py

Processes with gloo exchange gradients of ResNet-18's shapes through DistributedDataParallel, dense
and by the 1-bit hook. What goes over the loopback device is counted by the kernel, in a network
namespace of its own, so that nothing else is in it; headers and acknowledgements are. Needs
Linux and the right to make a namespace (root). The bytes of one step are written to
results/one_bit_bytes.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from turns import record

from graphscale.distributed import OneBitState, one_bit_hook

RESULTS = Path(__file__).parent / "results" / "one_bit_bytes.json"
RANKS = (2, 4)
STEPS = 2  # counted, after one that is not


def resnet18_shapes() -> list[tuple[int, ...]]:
    """The shapes of all parameters of ResNet-18 for 1000 classes."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for inputs in (before, width):
            shapes += [(width, inputs, 3, 3), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
        if before != width:
            shapes += [(width, before, 1, 1), (width,), (width,)]
        before = width
    return [*shapes, (1000, 512), (1000,)]


class Parameters(nn.Module):
    """ResNet-18's parameters, whose gradients are random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.each = nn.ParameterList(torch.zeros(shape) for shape in resnet18_shapes())

    def forward(self, generator: torch.Generator) -> torch.Tensor:
        """A loss with random gradients."""
        return sum((p * torch.randn(p.shape, generator=generator)).sum() for p in self.each)


def sent() -> int:
    """Bytes that the loopback device has sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.split()[0] == "lo:")


def exchange(rank: int, ranks: int, one_bit: bool) -> int:
    """Bytes of one step, of all ranks."""
    ddp = DistributedDataParallel(Parameters())
    if one_bit:
        ddp.register_comm_hook(OneBitState(ddp, warm_up_steps=0), one_bit_hook)
    generator = torch.Generator().manual_seed(rank)
    for step in range(1 + STEPS):
        if step == 1:
            distributed.barrier()
            before = sent()
        ddp(generator).backward()
    distributed.barrier()
    return (sent() - before) // STEPS


def run_rank(rank: int, ranks: int, port: int, answer: int) -> None:
    """In a process of its own: exchange both ways, and write the bytes as the first rank."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=ranks, rank=rank)
    found = [exchange(rank, ranks, one_bit) for one_bit in (False, True)]
    if rank == 0:
        os.write(answer, " ".join(map(str, found)).encode())
    distributed.destroy_process_group()


def main() -> None:
    if "--inside" not in sys.argv:
        command = f'ip link set lo up && exec "{sys.executable}" "{__file__}" --inside'
        raise SystemExit(subprocess.run(["unshare", "--net", "sh", "-c", command]).returncode)
    points = []
    for number, ranks in enumerate(RANKS):
        receive, answer = os.pipe()
        for rank in range(ranks):
            if os.fork() == 0:
                run_rank(rank, ranks, 29500 + number, answer)
                os._exit(0)
        for _ in range(ranks):
            os.wait()
        dense, one_bit = map(int, os.read(receive, 100).split())
        points.append({"ranks": ranks, "dense": dense, "one_bit": one_bit})
        print(
            f"{ranks} ranks: {dense:,} bytes dense, {one_bit:,} in one bit: {dense / one_bit:.1f}"
        )
    record(RESULTS, "bytes of one step", points)


if __name__ == "__main__":
    main()
