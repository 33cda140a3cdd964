"""Whole networks before and after acceleration on a CPU: python benchmarks/networks.py

Parts can be named; both are measured by default. inference: the file that torch.onnx.export writes,
in onnxruntime, before and after `graphscale accelerate`, and before also in OpenVINO, if it is
installed; each in a process of its own, with float32 throughout. training: one step of forward,
loss, backward and SGD in torch, before and after graphscale.layers.accelerate, whose trials have
ended; both in the faster of two memory formats, with --bfloat16 under autocast. --networks and
--batches choose networks and batch sizes.

All take turns on as many threads as the machine has cores. Medians and minima are written to
results/networks.json, one entry per part, network and batch, with the time that measuring the
algorithms took, without any earlier measurements, and the peak memory of the processes.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from contestants import Contestant, serve
from contestants import take_turns as contest
from rich.console import Console
from rich.progress import track
from rich.table import Table
from turns import THREADS, Times, record, take_turns

import graphscale
from graphscale.acceleration.accelerate_model import accelerate_model
from graphscale.acceleration.whole_model import relative_difference
from graphscale.core.model_files import load_model, save_model
from graphscale.core.runtime import session
from graphscale.layers import accelerate
from graphscale.layers.auto_conv import is_trying
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.rewrite_convolutions import algorithm_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo import NETWORKS as ZOO
from zoo import build, export

RESULTS = Path(__file__).parent / "results" / "networks.json"
# By name: the network of tests/zoo for inference, if any, and the one for training.
NETWORKS: dict[str, tuple[str | None, str]] = {
    "RepLKNet-31B": ("replknet_merged", "replknet_train"),
    "SLaK-T": ("slak_tiny", "slak_tiny"),
    "UniRepLKNet-T": ("unireplknet_merged", "unireplknet_train"),
    "ConvNeXt-T": ("convnext_tiny", "convnext_tiny"),
    "OverFeat-fast": ("overfeat_fast", "overfeat_fast"),
    "AlexNet": ("alexnet", "alexnet"),
    "VGG-16": ("vgg16", "vgg16_bn"),
    "ResNet-50": ("resnet50", "resnet50"),
    "U-Net": ("unet_transpose", "unet_transpose"),
    "ResNet-34": (None, "resnet34"),
    "ResNet-34, pre-train": (None, "resnet34"),
    "OverFeat-fast, pre-train": (None, "overfeat_fast"),
}
PRETRAIN = ", pre-train"  # what `graphscale.shrink` makes of the network is trained
BATCHES = {"inference": (1, 8), "training": (4,)}
SECONDS = 10.0  # for the turns of a network
OPENVINO = "OpenVINO"
FORMATS = {"": torch.contiguous_format, ", channels_last": torch.channels_last}


def synthetic_images(size: int, batch: int) -> np.ndarray:
    """Normally distributed images [batch, 3, size, size]."""
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)


def contestant(state: str, path: Path, name: str, batch: int) -> Contestant:
    """A process that runs a file: in OpenVINO for that state, in onnxruntime for all others."""
    command = [sys.executable, __file__, "--serve", state, str(path), name, str(batch)]
    return Contestant(command)


def serve_file(state: str, path: str, name: str, batch: str) -> None:
    """In the process of its own: open the file on all cores and answer."""
    x = synthetic_images(ZOO[name].input_size, int(batch))
    if state == OPENVINO:
        import openvino

        model = openvino.Core().read_model(path)
        model.reshape(x.shape)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": THREADS,
            "INFERENCE_PRECISION_HINT": "f32",  # some processors would take bfloat16
        }
        request = openvino.compile_model(model, "CPU", options).create_infer_request()
        return serve(lambda: list(request.infer({0: x}, share_inputs=True).values()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    opened = session(path, sess_options=options, providers=["CPUExecutionProvider"])
    return serve(lambda: opened.run(None, {"image": x}))


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
    if has_openvino():
        files[OPENVINO] = files["before"]

    with ExitStack() as processes:
        running = {
            state: processes.enter_context(contestant(state, path, name, batch))
            for state, path in files.items()
        }
        outputs = {state: each.outputs(folder / f"{state}.npz") for state, each in running.items()}
        times = contest(running, SECONDS)
        memory = {state: each.peak() for state, each in running.items()}
    return point(
        times,
        difference=max(map(relative_difference, outputs["before"], outputs["after"])),
        rewritten=sum(algorithm is not None for algorithm in algorithms),
        convolutions=len(algorithms),
        tuning_seconds=tuning,
        peak_memory=memory,
    )


def has_openvino() -> bool:
    """Whether OpenVINO can take part."""
    return importlib.util.find_spec("openvino") is not None


def measure_training(
    network: str, batch: int, folder: Path, bfloat16: bool = False
) -> dict[str, object]:
    """The point of a network's training step before and after accelerate."""
    _, name = NETWORKS[network]
    before, size = build(name), ZOO[name].input_size
    if network.endswith(PRETRAIN):
        before = graphscale.shrink(before, torch.zeros(2, 3, size, size))
        size = before.graphscale_plan.inputs[0].pretrain[-1]
    before.train()
    x = torch.from_numpy(synthetic_images(size, batch))
    map_size = before(x[:2]).shape[2:]  # one class per pixel for segmentation, per image otherwise
    target = torch.zeros(batch, *map_size, dtype=torch.int64)
    depthwise = [each.kernel_size for each in convolutions_of(before) if each.groups > 1]
    # With larger depthwise kernels a step of torch in channels_last takes many seconds.
    large = max(map(max, depthwise), default=0) > 13
    modules, steps = {}, {}
    for suffix, format_ in list(FORMATS.items())[: 1 if large else 2]:
        images = x.contiguous(memory_format=format_)
        for state in ("before", "after"):
            module = copy.deepcopy(before).to(memory_format=format_)
            modules[state + suffix] = accelerate(module) if state == "after" else module
            steps[state + suffix] = step(module, images, target, bfloat16)
    torch.manual_seed(0)  # both steps draw the same dropout
    wanted = steps["before"]()
    torch.manual_seed(0)
    started = time.perf_counter()
    found = steps["after"]()
    tuning = time.perf_counter() - started
    for state in [state for state in steps if state.startswith("after")]:
        while is_trying(modules[state]):
            steps[state]()
    return point(
        take_turns(steps, SECONDS),
        difference=relative_difference(wanted, found),
        convolutions=len(convolutions_of(before)),
        tuning_seconds=tuning,
    )


def convolutions_of(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    """All two-dimensional convolutions of the module."""
    return [each for each in module.modules() if isinstance(each, torch.nn.Conv2d)]


def step(
    module: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, bfloat16: bool
) -> Callable[[], torch.Tensor]:
    """A function that runs one training step and returns the network's output."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)  # all targets are class 0

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = module(x)
            loss = torch.nn.functional.cross_entropy(y, target)
        loss.backward()
        optimizer.step()
        return y.detach().float()

    return run


def point(times: dict[str, Times], **more: object) -> dict[str, object]:
    """A point of the results; each ratio is how many times faster the fastest after is."""
    ratios = {}
    for name, start in (("ratio", "before"), ("ratio_to_openvino", OPENVINO)):
        others = fastest_of(times, start)
        if others is not None:
            after = fastest_of(times, "after")
            ratios[name] = others.median / after.median
            ratios[f"{name}_of_minima"] = others.minimum / after.minimum
    seconds = {state: asdict(each) for state, each in times.items()}
    return {"seconds": seconds, **ratios, **more}


def fastest_of(times: dict[str, Times], start: str) -> Times | None:
    """The smallest median and minimum of the states whose names start so."""
    found = [each for state, each in times.items() if state.startswith(start)]
    if not found:
        return None
    return Times(min(each.median for each in found), min(each.minimum for each in found))


def show(points: dict[tuple[str, str, int], dict]) -> None:
    """Print the points as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "network"):
        table.add_column(column)
    for column in ("batch", "before", "after", "ratio", "of minima", "to OpenVINO", "of minima"):
        table.add_column(column, justify="right")
    for column in ("convolutions", "difference", "measuring", "memory"):
        table.add_column(column, justify="right")
    for (part, network, batch), found in points.items():
        times = {state: Times(**each) for state, each in found["seconds"].items()}
        before, after = (fastest_of(times, state).median for state in ("before", "after"))
        sizes = found.get("peak_memory", {})
        changed = f"{found['rewritten']} of " if "rewritten" in found else ""
        memory = [f"{1e-6 * sizes[state]:.0f}" for state in ("before", "after") if sizes]
        table.add_row(
            *(part, network, str(batch)),
            f"{1e3 * before:.1f} ms",
            f"{1e3 * after:.1f} ms",
            *(
                f"{found[name]:.2f}" if name in found else ""
                for start in ("ratio", "ratio_to_openvino")
                for name in (start, f"{start}_of_minima")
            ),
            f"{changed}{found['convolutions']}",
            f"{found['difference']:.1e}",
            f"{found['tuning_seconds']:.0f} s",
            " → ".join(memory) + " MB" * bool(memory),
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


PARTS: dict[str, Callable[..., dict[str, object]]] = {
    "inference": measure_inference,
    "training": measure_training,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--bfloat16", action="store_true", help="training under autocast")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_file(*arguments.serve)
        return
    if arguments.parts != ["training"] and not has_openvino():
        print("without OpenVINO, which is not installed: pip install openvino")
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    chosen = [
        (part, network, batch)
        for part in arguments.parts or PARTS
        for network in arguments.networks
        if part == "training" or NETWORKS[network][0] is not None
        for batch in arguments.batches or BATCHES[part]
    ]
    points = {}
    for each in track(chosen, console=Console(stderr=True), transient=True):
        part, network, batch = each
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder  # without earlier measurements
            how = {"bfloat16": True} if arguments.bfloat16 and part == "training" else {}
            points[each] = PARTS[part](network, batch, Path(folder), **how)
        name = f"{part}, {network}, batch {batch}" + ", bfloat16" * bool(how)
        record(RESULTS, name, [points[each]])
    show(points)


if __name__ == "__main__":
    main()
