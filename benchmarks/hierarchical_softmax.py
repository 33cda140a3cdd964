"""HierarchicalSoftmax against torch's losses: python benchmarks/hierarchical_softmax.py

A training step is loss, gradients and plain SGD, for 10,000 to a million classes whose targets
follow Zipf's law, as words do. It is compared with torch's AdaptiveLogSoftmaxWithLoss, and up to
100,000 classes with a full softmax (Linear and cross_entropy). Candidates take turns in one
process; medians and minima are written to results/hierarchical_softmax.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from turns import THREADS, record, take_turns

from graphscale.layers import HierarchicalSoftmax

RESULTS = Path(__file__).parent / "results" / "hierarchical_softmax.json"
FEATURES, BATCH = 256, 128
CLASSES = (10_000, 100_000, 1_000_000)
MAX_FULL = 100_000  # classes of a full softmax


def step(module: nn.Module, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable:
    """A function that runs one training step of `module` on a batch."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def run(x: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(x, target).backward()
        optimizer.step()

    return run


def candidates(classes: int, frequencies: torch.Tensor) -> dict[str, Callable]:
    """The training step of each loss, by name."""
    sparse = HierarchicalSoftmax(FEATURES, classes, frequencies=frequencies, sparse=True)
    cutoffs = [classes // 50, classes // 10, classes // 2]
    adaptive = nn.AdaptiveLogSoftmaxWithLoss(FEATURES, classes, cutoffs)
    found = {
        "HierarchicalSoftmax, sparse gradients": step(sparse, sparse),
        "AdaptiveLogSoftmaxWithLoss": step(adaptive, lambda x, t: adaptive(x, t).loss),
    }
    if classes <= MAX_FULL:
        dense = HierarchicalSoftmax(FEATURES, classes, frequencies=frequencies)
        full = nn.Linear(FEATURES, classes)
        found["HierarchicalSoftmax"] = step(dense, dense)
        found["full softmax"] = step(full, lambda x, t: functional.cross_entropy(full(x), t))
    return found


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    points = []
    for classes in CLASSES:
        frequencies = 1 / torch.arange(1, classes + 1, dtype=torch.float64)
        target = torch.multinomial(frequencies[: 1 << 24], BATCH, replacement=True)
        x = torch.randn(BATCH, FEATURES)
        runs = candidates(classes, frequencies)
        times = take_turns({name: partial(run, x, target) for name, run in runs.items()}, 20.0)
        sizes = {"classes": classes, "features": FEATURES, "batch": BATCH}
        points.append({**sizes, "seconds": {name: asdict(each) for name, each in times.items()}})
        print(f"{classes} classes")
        for name, each in times.items():
            print(f"  {name:40} {each.median * 1e3:9.2f} ms (minimum {each.minimum * 1e3:.2f})")
    record(RESULTS, "training step", points)


if __name__ == "__main__":
    main()
