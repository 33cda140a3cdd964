"""Training steps of a target and of its pre-train network: python benchmarks/training_steps.py

How many times faster the small network's steps are, on one processor core. A step is forward, loss,
backward and SGD with Nesterov momentum and weight decay. It is measured as torch computes it, in
either memory format, and as `graphscale train` does: in channels_last, with matrix_convolutions and
FusedSGD. The process keeps the memory that it frees, as `graphscale train` has it, for all of them.

All candidates take turns. The fastest turn counts, in seconds of the processor: on a machine that
others use, too, they leave out the time in which others run. Networks and batch sizes can be
chosen; results/training_steps.json gets one entry per network and batch size.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from turns import record

import graphscale
from graphscale.layers import matrix_convolutions
from graphscale.training import FusedSGD, keep_freed_memory

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "samples"))
from target import KERNELS as DEMO_KERNELS
from target import PRETRAIN_SIZE as DEMO_PRETRAIN_SIZE
from target import SIZE as DEMO_SIZE
from target import target_network
from zoo import build

RESULTS = Path(__file__).parent / "results" / "training_steps.json"
# By name: how the target is made, channels and size of its images, and batch sizes.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int, tuple[int, ...]]] = {
    "ResNet-34": (lambda: build("resnet34"), 3, 224, (4, 16)),
    "OverFeat-fast": (lambda: build("overfeat_fast"), 3, 231, (8, 32)),
    "demo": (lambda: target_network(1, 10), 1, DEMO_SIZE, (64,)),
}
SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
# Where a network is not shrunk as the paper does it: the options of graphscale.shrink.
SHRINKING = {"demo": {"input_size": DEMO_PRETRAIN_SIZE, "kernels": DEMO_KERNELS}}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
OURS = "graphscale train"

Name = TypeVar("Name")


def step(network: nn.Module, images: torch.Tensor, how: str) -> Callable[[], None]:
    """One training step; `how` is a memory format of torch's own step, or `OURS`."""
    format_ = FORMATS.get(how, torch.channels_last)
    network = copy.deepcopy(network).to(memory_format=format_).train()
    images = images.contiguous(memory_format=format_)
    labels = torch.arange(len(images)) % 10
    optimizer = (FusedSGD if how == OURS else torch.optim.SGD)(network.parameters(), **SGD)

    def run() -> None:
        with matrix_convolutions() if how == OURS else nullcontext():
            loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def processor_seconds(candidates: dict[Name, Callable[[], None]], turns: int) -> dict[Name, float]:
    """Seconds of the processor of each candidate's fastest turn, after one that does not count."""
    best = dict.fromkeys(candidates, math.inf)
    for turn in range(turns + 1):
        for name, run in candidates.items():
            started = time.process_time()
            run()
            if turn > 0:
                best[name] = min(best[name], time.process_time() - started)
    return best


def measure(network: str, batch: int, turns: int) -> dict[str, object]:
    """The point of a network and batch size."""
    make, channels, size, _ = NETWORKS[network]
    torch.manual_seed(0)
    target = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.randn(2, channels, size, size)
        pretrain = graphscale.shrink(target, example, **SHRINKING.get(network, {}))
    small = pretrain.graphscale_plan.inputs[0].pretrain[-1]
    candidates = {
        (state, how): step(module, torch.randn(batch, channels, pixels, pixels), how)
        for state, module, pixels in (("target", target, size), ("pre-train", pretrain, small))
        for how in (*FORMATS, OURS)
    }
    seconds = processor_seconds(candidates, turns)

    def fastest(state: str, hows: tuple[str, ...]) -> float:
        return min(seconds[state, how] for how in hows)

    ours = seconds["pre-train", OURS]
    return {
        "threads": torch.get_num_threads(),
        "turns": turns,
        "sizes": [size, small],
        "seconds": {
            state: {how: seconds[state, how] for how in (*FORMATS, OURS)}
            for state in ("target", "pre-train")
        },
        # Both networks in torch; the pre-train network as trained against the target in torch,
        # and against the target's fastest step of all.
        "ratio_in_torch": fastest("target", (*FORMATS,)) / fastest("pre-train", (*FORMATS,)),
        "ratio": fastest("target", (*FORMATS,)) / ours,
        "ratio_to_fastest": fastest("target", (*FORMATS, OURS)) / ours,
    }


def show(points: dict[tuple[str, int], dict]) -> None:
    """Print the points as a table."""
    table = Table(title="Training steps, ms; how many times faster the pre-train network's are")
    for column in ("network", "batch", "images"):
        table.add_column(column)
    for column in ("target", "as trained", "pre-train", "as trained", "in torch", "both", "ratio"):
        table.add_column(column, justify="right")
    for (network, batch), found in points.items():
        cells = []
        for seconds in found["seconds"].values():
            cells += [min(seconds[how] for how in FORMATS), seconds[OURS]]
        table.add_row(
            *(network, str(batch), "→".join(map(str, found["sizes"]))),
            *(f"{1e3 * each:.0f}" for each in cells),
            f"{found['ratio_in_torch']:.2f}",
            f"{found['ratio_to_fastest']:.2f}",
            f"{found['ratio']:.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    chosen = [
        (network, batch)
        for network in arguments.networks
        for batch in arguments.batches or NETWORKS[network][-1]
    ]
    points = {}
    for network, batch in track(chosen, console=Console(stderr=True), transient=True):
        points[network, batch] = measure(network, batch, arguments.turns)
        record(RESULTS, f"{network}, batch {batch}", [points[network, batch]])
    show(points)


if __name__ == "__main__":
    main()
