"""Whole networks before and after acceleration on a CPU: python benchmarks/networks.py

Parts can be named; both are measured by default. inference: the file that torch.onnx.export writes,
in onnxruntime, before and after `graphscale accelerate`. training: one step of forward, loss,
backward and SGD in torch, before and after graphscale.layers.accelerate; before, in the faster of
two memory formats. --networks and --batches choose networks and batch sizes.

Before and after take turns on as many threads as the machine has cores. Medians and minima are
written to results/networks.json, one entry per part, network and batch, with the time that
measuring the algorithms took, without any earlier measurements. Peak memory is that of a process of
its own that opens the file and runs it.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from memory import peak
from rich.console import Console
from rich.progress import track
from rich.table import Table
from turns import THREADS, Times, record, take_turns

from graphscale.acceleration.accelerate_model import accelerate_model
from graphscale.acceleration.whole_model import relative_difference
from graphscale.core.model_files import load_model, save_model
from graphscale.core.runtime import session
from graphscale.layers import accelerate
from graphscale.layers.auto_conv import AutoConv2d
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.rewrite_convolutions import algorithm_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo import NETWORKS as ZOO
from zoo import build, export

RESULTS = Path(__file__).parent / "results" / "networks.json"
# By name: the network of tests/zoo for inference, and the one for training.
NETWORKS = {
    "RepLKNet-31B": ("replknet_merged", "replknet_train"),
    "SLaK-T": ("slak_tiny", "slak_tiny"),
    "UniRepLKNet-T": ("unireplknet_merged", "unireplknet_train"),
    "ConvNeXt-T": ("convnext_tiny", "convnext_tiny"),
    "OverFeat-fast": ("overfeat_fast", "overfeat_fast"),
    "AlexNet": ("alexnet", "alexnet"),
    "VGG-16": ("vgg16", "vgg16_bn"),
    "ResNet-50": ("resnet50", "resnet50"),
    "U-Net": ("unet_transpose", "unet_transpose"),
}
BATCHES = {"inference": (1, 8), "training": (4,)}
SECONDS = 10.0  # for the turns of a network


def synthetic_images(name: str, batch: int) -> np.ndarray:
    """Normally distributed images [batch, 3, H, W] of the network's input size."""
    size = ZOO[name].input_size
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)


def open_file(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file with graphscale's library on all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return session(path, sess_options=options, providers=["CPUExecutionProvider"])


def measure_inference(network: str, batch: int, folder: Path) -> dict[str, object]:
    """The point of a network's file before and after `graphscale accelerate`."""
    name, _ = NETWORKS[network]
    files = {state: folder / f"{state}.onnx" for state in ("before", "after")}
    model = load_model(export(name, "dynamo"))
    save_model(model, files["before"])
    started = time.perf_counter()
    accelerate_model(model, batch=batch)
    tuning = time.perf_counter() - started
    save_model(model, files["after"])
    algorithms = [algorithm_of(node) for node in find_convolutions(model)]
    del model

    x = synthetic_images(name, batch)
    sessions = {state: open_file(path) for state, path in files.items()}
    outputs = {state: opened.run(None, {"image": x}) for state, opened in sessions.items()}
    candidates = {
        state: lambda opened=opened: opened.run(None, {"image": x})
        for state, opened in sessions.items()
    }
    times = take_turns(candidates, SECONDS)
    del sessions, candidates
    memory = {state: peak_memory(path, name, batch) for state, path in files.items()}
    return point(
        times,
        difference=max(map(relative_difference, outputs["before"], outputs["after"])),
        rewritten=sum(algorithm is not None for algorithm in algorithms),
        convolutions=len(algorithms),
        tuning_seconds=tuning,
        peak_memory=memory,
    )


def measure_training(network: str, batch: int, folder: Path) -> dict[str, object]:
    """The point of a network's training step before and after accelerate."""
    _, name = NETWORKS[network]
    x = torch.from_numpy(synthetic_images(name, batch))
    before = build(name).train()
    after = accelerate(copy.deepcopy(before))
    map_size = before(x[:2]).shape[2:]  # one class per pixel for segmentation, per image otherwise
    target = torch.zeros(batch, *map_size, dtype=torch.int64)
    modules = {"before": before, "after": after}
    steps = {state: step(module, x, target) for state, module in modules.items()}
    torch.manual_seed(0)  # both steps draw the same dropout
    wanted = steps["before"]()
    torch.manual_seed(0)
    started = time.perf_counter()
    found = steps["after"]()
    tuning = time.perf_counter() - started
    depthwise = [each.kernel_size for each in convolutions_of(before) if each.groups > 1]
    if max(map(max, depthwise), default=0) <= 13:  # with larger ones a step takes many seconds
        channels_last = copy.deepcopy(before).to(memory_format=torch.channels_last)
        images = x.to(memory_format=torch.channels_last)
        steps["before, channels_last"] = step(channels_last, images, target)
    return point(
        take_turns(steps, SECONDS),
        difference=relative_difference(wanted, found),
        rewritten=sum(isinstance(each, AutoConv2d) for each in convolutions_of(after)),
        convolutions=len(convolutions_of(after)),
        tuning_seconds=tuning,
    )


def convolutions_of(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    """All two-dimensional convolutions of the module."""
    return [each for each in module.modules() if isinstance(each, torch.nn.Conv2d)]


def step(
    module: torch.nn.Module, x: torch.Tensor, target: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """A function that runs one training step and returns the network's output."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)  # all targets are class 0

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        y = module(x)
        torch.nn.functional.cross_entropy(y, target).backward()
        optimizer.step()
        return y.detach()

    return run


def point(times: dict[str, Times], **more: object) -> dict[str, object]:
    """A point of the results; ratio is how many times faster after is than the fastest before."""
    others = [each for state, each in times.items() if state != "after"]
    after = times["after"]
    return {
        "seconds": {state: asdict(each) for state, each in times.items()},
        "ratio": min(each.median for each in others) / after.median,
        "ratio_of_minima": min(each.minimum for each in others) / after.minimum,
        **more,
    }


def peak_memory(path: Path, name: str, batch: int) -> int:
    """Peak bytes of a process that runs a file a few times."""
    command = [sys.executable, __file__, "--peak", str(path), name, str(batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(path: str, name: str, batch: str) -> None:
    """In the process of its own: run the file and print the peak."""
    opened, x = open_file(Path(path)), synthetic_images(name, int(batch))
    for _ in range(3):
        opened.run(None, {"image": x})
    print(peak())


def show(points: dict[tuple[str, str, int], dict]) -> None:
    """Print the points as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "network"):
        table.add_column(column)
    for column in ("batch", "before", "after", "ratio", "of minima", "rewritten", "difference"):
        table.add_column(column, justify="right")
    for column in ("measuring", "memory"):
        table.add_column(column, justify="right")
    for (part, network, batch), found in points.items():
        seconds = found["seconds"]
        before = min(times["median"] for state, times in seconds.items() if state != "after")
        memory = [f"{1e-6 * size:.0f}" for size in found.get("peak_memory", {}).values()]
        table.add_row(
            *(part, network, str(batch)),
            f"{1e3 * before:.1f} ms",
            f"{1e3 * seconds['after']['median']:.1f} ms",
            f"{found['ratio']:.2f}",
            f"{found['ratio_of_minima']:.2f}",
            f"{found['rewritten']} of {found['convolutions']}",
            f"{found['difference']:.1e}",
            f"{found['tuning_seconds']:.0f} s",
            " → ".join(memory) + " MB" * bool(memory),
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


PARTS: dict[str, Callable[[str, int, Path], dict[str, object]]] = {
    "inference": measure_inference,
    "training": measure_training,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak_memory(*arguments.peak)
        return
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    chosen = [
        (part, network, batch)
        for part in arguments.parts or PARTS
        for network in arguments.networks
        for batch in arguments.batches or BATCHES[part]
    ]
    points = {}
    for each in track(chosen, console=Console(stderr=True), transient=True):
        part, network, batch = each
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder  # without earlier measurements
            points[each] = PARTS[part](network, batch, Path(folder))
        record(RESULTS, f"{part}, {network}, batch {batch}", [points[each]])
    show(points)


if __name__ == "__main__":
    main()
