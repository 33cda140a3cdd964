"""Bytes and seconds of exchanging ResNet-18's gradients: python benchmarks/gradient_exchange.py

Claim: one bit per element puts at most 1/25 of dense gradients' bytes on the wire. A second part
measures how many seconds a step takes on links of 100 Mb/s to 1 Gb/s, and what its processor's part
is, beside dense gradients and torch's own hooks: float16, and PowerSGD with matrices of rank 1 and
4 (torch's bfloat16 hook refuses gloo). It needs a machine with nothing else to do, and takes some
minutes.

Each process is a host of its own (tests/distributed/hosts.py) with one thread, and all ways take
turns in the same processes. A step is a backward pass whose gradients cost nothing to compute, up
to the moment in which every host has the means. Seconds of the processor are those of one host in a
step: no link is so fast that a step takes less.

Results go to results/gradient_exchange.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from turns import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from distributed.hosts import Hosts, bytes_sent, congestion_control, enter

RESULTS = Path(__file__).parent / "results" / "gradient_exchange.json"
RATES = ("100mbit", "300mbit", "1gbit")
WAYS = ("dense", "float16", "PowerSGD 1", "PowerSGD 4", "one bit")
WARM_UP = 3  # steps that are not counted; PowerSGD begins with two dense ones


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


def exchange(way: str, rank: int):
    """A function that exchanges gradients once."""
    import torch
    from torch import nn
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel

    from graphscale.distributed import OneBitState, one_bit_hook

    class Parameters(nn.Module):
        """ResNet-18's parameters, whose gradients are given numbers."""

        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(rank)
            shapes = resnet18_shapes()
            self.each = nn.ParameterList(torch.zeros(shape) for shape in shapes)
            self.gradients = [torch.randn(shape, generator=generator) for shape in shapes]

        def forward(self) -> torch.Tensor:
            return sum(
                torch.vdot(p.view(-1), g.view(-1)) for p, g in zip(self.each, self.gradients)
            )

    # PowerSGD's sums of several buckets, started by gloo's threads, are in another order on each
    # host, and gloo then ends: it gets a single bucket.
    size = 1000 if way.startswith("PowerSGD") else None
    ddp = DistributedDataParallel(Parameters(), gradient_as_bucket_view=True, bucket_cap_mb=size)
    if way == "one bit":
        ddp.register_comm_hook(OneBitState(ddp, warm_up_steps=0), one_bit_hook)
    elif way == "float16":
        ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif way.startswith("PowerSGD"):
        state = powerSGD_hook.PowerSGDState(
            None, matrix_approximation_rank=int(way.split()[1]), start_powerSGD_iter=2
        )
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

    def step() -> None:
        ddp().backward()

    return step


def run_rank(
    rank: int, ranks: int, address: str, ways: list[str], turns: int, warm_up: int
) -> None:
    """On a host of its own: exchange in every way, and print what it took on the first host."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://{address}:29500", world_size=ranks, rank=rank)
    steps = {way: exchange(way, rank) for way in ways}
    taken: dict[str, list[tuple[float, float, int]]] = {way: [] for way in ways}
    for turn in range(-warm_up, turns):
        for way, step in steps.items():
            distributed.barrier()
            begun = time.perf_counter(), time.process_time(), bytes_sent()
            step()
            own = time.process_time(), bytes_sent()
            distributed.barrier()
            if turn >= 0:
                wall = time.perf_counter() - begun[0]
                taken[way].append((wall, own[0] - begun[1], own[1] - begun[2]))
    points = []
    for way, each in taken.items():
        wall, processor, sent = zip(*each)
        total = torch.tensor(statistics.median(sent), dtype=torch.float64)
        distributed.all_reduce(total)
        points.append(
            {
                "way": way,
                "seconds": statistics.median(wall),
                "fastest_seconds": min(wall),
                "processor_seconds": min(processor),
                "bytes_of_all_hosts": int(total),
            }
        )
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps(points))


def measure(hosts: Hosts, ways: list[str], turns: int, warm_up: int = WARM_UP) -> list[dict]:
    """Points of all ways, exchanged between these hosts."""
    started = []
    for host in range(hosts.count):
        command = [sys.executable, __file__, "--rank", host, "--ranks", hosts.count]
        command += ["--address", hosts.address(0), "--turns", turns, "--warm-up", warm_up]
        command += ["--ways", *ways]
        output = subprocess.PIPE if host == 0 else None
        started.append(hosts.start(host, list(map(str, command)), stdout=output, text=True))
    answer = started[0].communicate()[0]
    if any(process.wait() for process in started):
        raise SystemExit("a host has failed")
    return json.loads(answer)


def measure_bytes() -> None:
    """Bytes of a step with packets as they are on the wire, of two and of four hosts."""
    points = []
    for count in (2, 4):
        with Hosts(count, whole_packets=False) as hosts:
            found = measure(hosts, ["dense", "one bit"], turns=1, warm_up=1)
        dense = found[0]["bytes_of_all_hosts"]
        for point in found:
            sent = point["bytes_of_all_hosts"]
            points.append({"hosts": count, "way": point["way"], "bytes": sent})
            print(f"{count} hosts, {point['way']}: {sent:,} bytes, 1/{dense / sent:.1f} of dense")
    record(RESULTS, "bytes of one step", points)


def measure_seconds(turns: int) -> None:
    """Seconds of a step between two hosts, by the speed of their links."""
    points = []
    for rate in RATES:
        with Hosts(2, rate) as hosts:
            found = measure(hosts, list(WAYS), turns)
        for point in found:
            del point["bytes_of_all_hosts"]
            points.append({"rate": rate, "tcp": congestion_control(), **point})
            print(
                f"{rate}, {point['way']}: {point['seconds'] * 1e3:.0f} ms, the fastest "
                f"{point['fastest_seconds'] * 1e3:.0f} ms, of the processor "
                f"{point['processor_seconds'] * 1e3:.0f} ms"
            )
    record(RESULTS, "seconds of one step", points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("bytes", "seconds"), help="only this part")
    parser.add_argument("--turns", type=int, default=7)
    for option in ("--rank", "--ranks", "--warm-up"):  # of a host's process
        parser.add_argument(option, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--ways", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        given = options.address, options.ways, options.turns, options.warm_up
        run_rank(options.rank, options.ranks, *given)
        return
    enter()
    if options.part != "seconds":
        measure_bytes()
    if options.part != "bytes":
        measure_seconds(options.turns)


if __name__ == "__main__":
    main()
