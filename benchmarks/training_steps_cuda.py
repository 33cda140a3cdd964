"""Training steps on a GPU: python benchmarks/training_steps_cuda.py [part ...]

Parts, all of them by default:
rescaling   a target of the paper (ResNet-34, OverFeat-fast) and its pre-train network, images of
            ImageNet's size: how many times faster are the small network's steps?
accelerate  large-kernel networks before and after graphscale.layers.accelerate.

A step is forward, loss, backward and torch's fused SGD with momentum, on images that lie on the
GPU; each part in float32, in TF32 and under autocast to bfloat16, in both memory formats, and with
--compile also by torch.compile. Candidates take turns; medians of the turns count.
results/training_steps_cuda.json gets an entry per part and network as soon as it is measured. A
network for which --minutes leave no time is left out, and the table says so.
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

import torch
from cuda_turns import provenance, record, times
from rich.console import Console
from rich.table import Table
from torch import nn

import graphscale
from graphscale.layers import accelerate
from graphscale.layers.auto_conv import AutoConv2d

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo import NETWORKS as ZOO
from zoo import build

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, tuple[str, ...]] = {
    "rescaling": ("resnet34", "overfeat_fast"),
    "accelerate": ("replknet_train", "slak_tiny", "unireplknet_train", "convnext_tiny"),
}
BATCHES = {"rescaling": 128, "accelerate": 32}
PRECISIONS = ("float32", "tf32", "bfloat16")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EPOCH = 1_281_167  # images of ImageNet's training set


def step(module: nn.Module, images: torch.Tensor, precision: str) -> Callable[[], None]:
    """One training step of a network."""
    labels = torch.arange(len(images), device="cuda") % 10
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9, fused=True)

    def run() -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
            precision == "tf32"
        )
        half = torch.autocast("cuda", torch.bfloat16) if precision == "bfloat16" else nullcontext()
        with half:
            loss = nn.functional.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def measure(part: str, name: str, precision: str, batch: int, compiles: bool) -> dict[str, object]:
    """The point of a network: seconds per step of each candidate, and the ratio of the fastest."""
    torch.manual_seed(0)
    target, size = build(name), ZOO[name].input_size
    states = {"before": (target, size), "after": (target, size)}
    if part == "rescaling":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pretrain = graphscale.shrink(target, torch.zeros(2, 3, size, size))
        small = pretrain.graphscale_plan.inputs[0].pretrain[-1]
        states = {"target": (target, size), "pre-train": (pretrain, small)}
    candidates, modules = {}, {}
    for state, (network, pixels) in states.items():
        for format_, memory_format in FORMATS.items():
            module = copy.deepcopy(network).cuda().train().to(memory_format=memory_format)
            images = torch.randn(batch, 3, pixels, pixels, device="cuda")
            images = images.contiguous(memory_format=memory_format)
            if state == "after":
                module = accelerate(module)
            modules[f"{state}, {format_}"] = module
            candidates[f"{state}, {format_}"] = step(module, images, precision)
            if compiles and format_ == "channels_last" and state != "after":
                compiled = torch.compile(copy.deepcopy(module))
                candidates[f"{state}, {format_}, compiled"] = step(compiled, images, precision)
    begun = time.perf_counter()
    for run in candidates.values():
        run()
        torch.cuda.synchronize()
    found = times(candidates)
    first, second = (
        min(each["median"] for key, each in found.items() if key.startswith(state))
        for state in states
    )
    point = {
        "seconds": found,
        "ratio": first / second,
        "batch": batch,
        "sizes": [pixels for _, pixels in states.values()],
        "first_steps_seconds": time.perf_counter() - begun,
    }
    if part == "rescaling":
        point["epoch_seconds"] = [EPOCH / batch * each for each in (first, second)]
    else:
        point["algorithms"] = _algorithms(modules["after, contiguous"])
    return point


def _algorithms(module: nn.Module) -> dict[str, dict[str, str]]:
    """By layer, the algorithm of each pass that is not torch's own."""
    chosen = {}
    for name, layer in module.named_modules():
        if isinstance(layer, AutoConv2d):
            own = {
                key.split()[0]: algorithm
                for key, algorithm in layer.__dict__.get("_chosen", {}).items()
                if algorithm != "torch"
            }
            if own:
                chosen[name] = own
    return chosen


def show(points: dict[tuple[str, str, str], dict]) -> None:
    """Print the points as a table, in milliseconds per step."""
    table = Table(title="Training steps, ms (contiguous / channels_last / compiled)", box=None)
    for column in ("part", "network", "precision", "first", "second"):
        table.add_column(column)
    table.add_column("ratio", justify="right")
    for key, found in points.items():
        if "seconds" not in found:
            table.add_row(*key, found["failed"])
            continue
        cells = {}
        for name, each in found["seconds"].items():
            cells.setdefault(name.split(",")[0], []).append(f"{1e3 * each['median']:.1f}")
        columns = [f"{state} {' / '.join(each)}" for state, each in cells.items()]
        table.add_row(*key, *columns, f"{found['ratio']:.2f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="of those above")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--networks", nargs="+", help="of those of the parts; all by default")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--compile", action="store_true", help="also by torch.compile")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing later")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available():
        sys.exit("nothing to measure here: torch sees no GPU")
    torch.backends.cudnn.benchmark = True
    until = time.monotonic() + 60 * arguments.minutes
    points = {}
    for part in arguments.parts or PARTS:
        for name in PARTS[part]:
            for precision in arguments.precisions:
                if arguments.networks and name not in arguments.networks:
                    continue
                key = part, name, precision
                try:
                    if time.monotonic() > until:
                        raise TimeoutError("no time was left for it")
                    batch = arguments.batch or BATCHES[part]
                    points[key] = measure(part, name, precision, batch, arguments.compile)
                    found = {**provenance(), **points[key]}
                    record(arguments.out / "training_steps_cuda.json", ", ".join(key), found)
                except Exception as reason:  # the other networks are measured all the same
                    points[key] = {"failed": str(reason).splitlines()[0][:300]}
                torch.cuda.empty_cache()
    show(points)


if __name__ == "__main__":
    main()
