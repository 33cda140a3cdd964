"""Measure what a training step costs in each stage of every recipe, all stages in turn.

    python benchmarks/training/costs.py

A training of run.py takes minutes, in which other work on the machine comes and goes. summary.py
therefore counts a training as its epochs times the costs that are measured here, side by side. The
result, costs.json, holds for each network and stage the seconds per image of a step: forward,
backward, optimizer.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime

import torch
from glyphs import CLASSES, SIZE
from networks import NETWORKS
from rich.progress import track
from run import RESULTS, processor_name
from torch.nn import functional as F
from variants import VARIANTS, stage_name

import graphscale
from graphscale.training.recipes import Recipe
from graphscale.training.rescaled_networks import RescaledNetworks

BATCH = 64


def main() -> None:
    """Measure every stage, and write costs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {
        "seconds_per_image": {name: _costs(name, options.rounds) for name in NETWORKS},
        "batch": BATCH,
        "device": f"{options.threads} threads of {processor_name()}",
        "versions": {"graphscale": graphscale.__version__, "torch": torch.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "costs.json").write_text(json.dumps(report, indent=1) + "\n")


def _costs(name: str, rounds: int) -> dict[str, float]:
    """Stage -> seconds per image: minima, since other work on the machine only adds time."""
    stages = {
        stage_name(stage): stage for variant in VARIANTS.values() for stage in variant.recipe.stages
    }
    target = NETWORKS[name](1, len(CLASSES))
    steps = {}
    for key, stage in stages.items():
        networks = RescaledNetworks(target, torch.zeros(1, 1, SIZE, SIZE), Recipe(key, (stage,)))
        steps[key] = _step(networks.first(0), networks.size(0))
    seconds = dict.fromkeys(steps, float("inf"))
    for _ in track(range(rounds), description=name):
        for key, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[key] = min(seconds[key], time.perf_counter() - started)
    return {key: each / BATCH for key, each in seconds.items()}


def _step(network: torch.nn.Module, size: tuple[int, int]):
    """A function that does one training step."""
    network.to(memory_format=torch.channels_last).train()
    images = torch.randn(BATCH, 1, *size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(len(CLASSES), (BATCH,))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, nesterov=True, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
