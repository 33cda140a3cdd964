"""Measure what a training step costs in each stage of every recipe, all stages in turn.

    python benchmarks/training/costs.py

A training of run.py takes minutes, in which other work on the machine comes and goes. summary.py
therefore counts a training as its epochs times the costs that are measured here, side by side. The
result, costs.json, holds for each network and stage the seconds per image of a step as
`graphscale train` does it: forward, backward, optimizer; and for each network and list of stages
the seconds in which the target is shrunk and grown back through all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from glyphs import CLASSES
from networks import NETWORKS
from rich.progress import track
from run import RESULTS
from scenes import SIZE
from torch import nn
from variants import VARIANTS, stage_name, stages_name

import graphscale
from graphscale.training import FusedSGD, keep_freed_memory
from graphscale.training.recipes import Recipe
from graphscale.training.rescaled_networks import RescaledNetworks

sys.path.append(str(Path(__file__).parents[1]))
from training_steps import OURS, processor_seconds, step
from turns import processor

BATCH = 64


def main() -> None:
    """Measure every stage, and write costs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    report = {
        "seconds_per_image": {name: _costs(name, options.turns) for name in track(NETWORKS)},
        "growth_seconds": {name: _growth(name) for name in track(NETWORKS)},
        "batch": BATCH,
        "device": f"1 thread of {processor()}",
        "versions": {"graphscale": graphscale.__version__, "torch": torch.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "costs.json").write_text(json.dumps(report, indent=1) + "\n")


def _costs(name: str, turns: int) -> dict[str, float]:
    """Stage -> seconds of the processor per image."""
    stages = {
        stage_name(stage): stage for variant in VARIANTS.values() for stage in variant.recipe.stages
    }
    target = NETWORKS[name](1, len(CLASSES))
    steps = {}
    for key, stage in stages.items():
        networks = RescaledNetworks(target, torch.zeros(1, 1, SIZE, SIZE), Recipe(key, (stage,)))
        network = networks.first(0)
        steps[key] = step(network, torch.randn(BATCH, 1, *networks.size(0)), OURS)
    return {key: each / BATCH for key, each in processor_seconds(steps, turns).items()}


def _growth(name: str) -> dict[str, float]:
    """Stages -> seconds of the processor for their networks, the faster of two times."""
    target = NETWORKS[name](1, len(CLASSES))
    steps = {
        stages_name(map(stage_name, each.recipe.stages)): partial(
            _through_all_stages, target, each.recipe
        )
        for each in VARIANTS.values()
    }
    return processor_seconds(steps, turns=2)


def _through_all_stages(target: nn.Module, recipe: Recipe) -> None:
    networks = RescaledNetworks(target, torch.zeros(1, 1, SIZE, SIZE), recipe)
    network = networks.first(0)
    optimizer = FusedSGD(network.parameters(), 0.1, momentum=0.9)
    for stage in range(len(recipe.stages) - 1):
        network = networks.grow(network, stage, optimizer)


if __name__ == "__main__":
    main()
