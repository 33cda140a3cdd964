"""What exchanging gradients costs on many GPUs: python benchmarks/scaling_plan.py [--write]

Bytes are computed from the networks' own shapes and the exchange's own packets;
gradient_exchange.py counts them on the wire for ResNet-18. Seconds are computed from a link's speed
and latency and from the GPU's memory traffic (`LINKS`, `MEMORY`, `PASSES`): nothing here ran on a
GPU.
--write puts the tables into docs/explanation/scaling_plan.md, in place of those that are there.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from graphscale.distributed.one_bit_exchange import Packets
from graphscale.distributed.one_bit_hook import OneBitState

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from zoo.plain import overfeat_fast
from zoo.residual import resnet

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "scaling_plan.md"
BEGIN, END = "<!-- tables of benchmarks/scaling_plan.py -->", "<!-- end of the tables -->"
GPUS = (8, 64, 512)
WAYS = ("dense", "bfloat16", "PowerSGD, rank 4", "one bit")
FLOAT = 4  # bytes of an element
MEMORY = 3.0e12  # bytes per second that a GPU reads and writes, of the 4.8e12 of an H200
# Passes over all elements of a gradient in memory, reads and writes counted apart.
PASSES = {"dense": 0, "bfloat16": 3, "PowerSGD, rank 4": 12, "one bit": 8}


@dataclass(frozen=True)
class Link:
    """How a GPU is joined to the others.

    Attributes:
        speed: Bytes per second and direction.
        latency: Seconds from a message's sending to its receipt.
    """

    name: str
    speed: float
    latency: float


LINKS = (
    Link("NVLink, 450 GB/s", 450e9, 2e-6),
    Link("100 Gb/s", 100e9 / 8, 5e-6),
    Link("25 Gb/s", 25e9 / 8, 20e-6),
    Link("10 Gb/s", 10e9 / 8, 20e-6),
    Link("1 Gb/s", 1e9 / 8, 50e-6),
)


def shapes_of(name: str) -> list[torch.Size]:
    """The shapes of a network's parameters."""
    with torch.device("meta"):
        network = resnet(34) if name == "ResNet-34" else overfeat_fast()
    return [parameter.shape for parameter in network.parameters()]


def bytes_sent(shapes: list[torch.Size], way: str, gpus: int) -> float:
    """Bytes that a GPU sends in a step."""
    share = 2 * (gpus - 1) / gpus  # of an all-reduce, by a ring or in halves
    elements = sum(shape.numel() for shape in shapes)
    if way == "dense":
        return share * FLOAT * elements
    if way == "bfloat16":
        return share * FLOAT / 2 * elements
    if way == "one bit":
        is_quantized = OneBitState(torch.nn.Module()).is_quantized
        matrices = [s for s in shapes if is_quantized(torch.empty(s, device="meta"))]
        packets = Packets([(s[0], s.numel() // s[0]) for s in matrices], torch.float32, gpus)
        dense = elements - sum(shape.numel() for shape in matrices)
        return 2 * (gpus - 1) * packets.size + share * FLOAT * dense
    rank, sent = 4, 0
    for shape in shapes:
        factors = rank * (shape[0] + shape.numel() // shape[0])
        # PowerSGD's own rule: what would not become half as large stays dense.
        sent += factors if len(shape) > 1 and 2 * factors < shape.numel() else shape.numel()
    return share * FLOAT * sent


def seconds(shapes: list[torch.Size], way: str, gpus: int, link: Link) -> float:
    """Seconds of a step's exchange, beside nothing else."""
    elements = sum(shape.numel() for shape in shapes)
    rounds = {"one bit": gpus - 1 + math.log2(gpus), "PowerSGD, rank 4": 4 * math.log2(gpus)}
    waiting = link.latency * rounds.get(way, 2 * math.log2(gpus))
    working = PASSES[way] * FLOAT * elements / MEMORY
    return bytes_sent(shapes, way, gpus) / link.speed + waiting + working


def _milliseconds(value: float) -> str:
    value *= 1e3
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def tables() -> str:
    """The tables of the page."""
    lines = []
    links = " | ".join(link.name for link in LINKS)
    for name in ("ResNet-34", "OverFeat-fast"):
        shapes = shapes_of(name)
        millions = sum(shape.numel() for shape in shapes) / 1e6
        lines += ["", f"### {name}, {millions:.1f} million weights", ""]
        lines += [f"| GPUs | way | MB sent per GPU | {links} |"]
        lines += ["|---|---|---|" + "---|" * len(LINKS)]
        for gpus in GPUS:
            for way in WAYS:
                sent = f"{bytes_sent(shapes, way, gpus) / 1e6:.1f}"
                each = [_milliseconds(seconds(shapes, way, gpus, link)) for link in LINKS]
                lines.append(f"| {gpus} | {way} | {sent} | " + " | ".join(each) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    if parser.parse_args().write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")
    else:
        print(tables())


if __name__ == "__main__":
    main()
