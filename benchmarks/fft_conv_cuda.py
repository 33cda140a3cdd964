"""FFT convolution on a GPU against cuDNN: python benchmarks/fft_conv_cuda.py [part ...]

Parts: goals, networks (five layers of convnet-benchmarks, batch 128), grid (kernel x channels),
depthwise, lines (one-dimensional kernels), tiles (algorithms of a few layers with more and less
memory for spectra); all of them by default. docs/cuda_predictions.md says what to expect.

'graphscale' is FFTConv with the algorithm that was measured to be the fastest; 'graphscale auto' is
FFTConv with the algorithm of the cost model. cuDNN runs in benchmark mode, in NCHW and
channels_last; the forward pass also runs in onnxruntime, as Conv and as FFTConv. Candidates in
torch are replayed as CUDA graphs, without the time that Python takes to start kernels; 'graphscale
eager' includes that time.

Candidates take turns. Medians and minima of the turns and the relative error of each output against
float64 go to results/fft_conv_cuda.json after each layer, with the copy bandwidth of the device,
measured in the same process. Heat maps of the grid and of depthwise layers are written beside it:
green where graphscale is faster than the better of cuDNN's two memory formats. Each part runs in a
process of its own. A layer that fails, or for which --minutes leave no time, has the reason in
place of its times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import onnxruntime
import torch
from cuda_turns import provenance, record, times
from fft_conv_cuda_alternatives import (
    Layer,
    cudnn,
    depthwise,
    error,
    in_onnxruntime,
    ours,
    passes,
    tensors,
)
from heat_map import draw

from graphscale.layers import library
from graphscale.layers.operator import OPERATORS

RESULTS = Path(__file__).parent / "results"
EAGER = (
    "graphscale eager",
    "onnxruntime conv",
    "onnxruntime fft_conv",
)  # called without a CUDA graph
PRECISIONS = {  # the tensors' type, and whether products may be single TF32 ones
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}
NETWORKS = [
    Layer(128, 3, 96, 128, 11),
    Layer(128, 64, 64, 64, 9),
    Layer(128, 128, 128, 32, 9),
    Layer(128, 128, 128, 16, 7),
    Layer(128, 384, 384, 13, 3),
]
PARTS = {
    "goals": [
        Layer(128, 64, 64, 64, 13),
        Layer(128, 256, 256, 32, 13),
        *NETWORKS[1:3],
        depthwise(32, 128, 56, 31),
        depthwise(32, 128, 56, 51),
        Layer(128, 64, 64, 64, 3),
    ],
    "networks": NETWORKS,
    "grid": [
        Layer(128, channels, channels, 32, kernel)
        for kernel in (3, 5, 7, 9, 11, 13)
        for channels in (16, 64, 128, 256)
    ],
    "depthwise": [
        depthwise(64, channels, size, kernel)
        for channels, size in ((128, 56), (256, 28), (512, 14))
        for kernel in (7, 13, 21, 31, 51)
    ],
    "lines": [
        Layer(8, 64, 64, length, kernel, groups, kernel // 2, dims=1)
        for length, kernel in ((16384, 1024), (65536, 4096), (65536, 16384))
        for groups in ((64, 1) if kernel == 1024 else (64,))
    ],
}
TILES = [
    NETWORKS[1],
    Layer(128, 256, 256, 32, 13),
    depthwise(32, 128, 56, 31),
    depthwise(32, 128, 56, 13),
]
SPECTRA_MB = (16, 32, 64, 256, 1024)


@contextlib.contextmanager
def environment(**values: object) -> Iterator[None]:
    """Set environment variables, which the library reads at each call, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def recorded(run: Callable[[], object]) -> Callable[[], object]:
    """A function that replays the work of `run` as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_bandwidth() -> float:
    """Bytes read and written per second by a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / times({"copy": lambda: target.copy_(source)})["copy"]["median"]


def fastest_algorithms(layer: Layer, given: tuple[torch.Tensor, ...]) -> dict[str, str]:
    """The fastest algorithm of each pass, measured among those that the cost model proposes."""
    chosen = {}
    for name, arguments in passes(layer, given).items():
        algorithms = library.algorithms(name, arguments, layer.attributes) or ["auto"]
        # The direct kernels, with one thread per result, take seconds where FFTs are better.
        algorithms = [
            algorithm
            for algorithm in algorithms
            if algorithm != "direct" or algorithm == algorithms[0]
        ]
        candidates = {}
        for algorithm in algorithms:
            run = functools.partial(
                OPERATORS[name], *arguments, **layer.attributes, algorithm=algorithm
            )
            run()
            candidates[algorithm] = recorded(run)
        found = times(candidates)
        chosen[name] = min(found, key=lambda algorithm, found=found: found[algorithm]["median"])
    return chosen


def without_failing(
    runs: dict[str, Callable[[], object]], failed: dict[str, str], kind: str
) -> dict[str, Callable[[], object]]:
    """The candidates that run, as CUDA graphs; ``failed`` gets the reason of each other one."""
    left = {}
    for name, run in runs.items():
        try:
            run()
            torch.cuda.synchronize()
            left[name] = run
            if name not in EAGER:
                left[name] = recorded(run)
        except Exception as reason:  # cuDNN's and onnxruntime's errors are of many kinds
            if name == "graphscale":
                raise
            step = " as a graph" if name in left else ""
            failed[f"{name} {kind}{step}"] = str(reason)
            torch.cuda.empty_cache()
    return left


def measure(layer: Layer, precision: str) -> dict:
    """The point of a layer: seconds of all candidates, forward and round trip, and errors."""
    dtype, tf32 = PRECISIONS[precision]
    torch.backends.cudnn.allow_tf32 = tf32
    given = tensors(layer, dtype)
    x, weight, grad = given
    point = {"layer": str(layer), **asdict(layer), "precision": precision, "failed": {}}
    with environment(GRAPHSCALE_TF32=int(tf32)):
        point["algorithms"] = fastest_algorithms(layer, given)
        auto = dict.fromkeys(point["algorithms"], "auto")
        sides = {
            "graphscale": ours(layer, given, point["algorithms"]),
            "graphscale auto": ours(layer, given, auto),
            "graphscale eager": ours(layer, given, point["algorithms"]),
            "cudnn": cudnn(layer, given, channels_last=False),
        }
        if layer.dims == 2:
            sides["cudnn channels_last"] = cudnn(layer, given, channels_last=True)
        if dtype == torch.float32:
            for name, algorithm in (("conv", None), ("fft_conv", point["algorithms"]["FFTConv"])):
                try:
                    run = in_onnxruntime(layer, x, weight, tf32, algorithm)
                    sides[f"onnxruntime {name}"] = {"forward": run}
                except Exception as reason:  # onnxruntime's errors are of many kinds
                    point["failed"][f"onnxruntime {name}"] = str(reason)
        for kind in ("forward", "round_trip"):
            runs = {name: side[kind] for name, side in sides.items() if kind in side}
            found = times(without_failing(runs, point["failed"], kind))
            theirs = [each["median"] for name, each in found.items() if name.startswith("cudnn")]
            best = min(theirs, default=math.nan)
            point[kind] = {**found, "ratio": best / found["graphscale"]["median"]}
        point["error"] = {
            name: error(sides[name]["forward"]()[0], layer, x, weight)
            for name in ("graphscale", "cudnn")
            if f"{name} forward" not in point["failed"]
        }
    point["bytes"] = (x.numel() + grad.numel()) * x.element_size()
    print(
        f"{layer!s:55} {precision:9} forward {point['forward']['ratio']:6.2f}x, "
        f"round trip {point['round_trip']['ratio']:6.2f}x, "
        f"{point['forward']['graphscale']['median'] * 1e6:9.1f} us "
        f"({point['algorithms']['FFTConv']}), "
        f"error {point['error']['graphscale']:.1e} "
        f"(cuDNN {point['error'].get('cudnn', math.nan):.1e})",
        flush=True,
    )
    return point


def measure_tiles(layer: Layer) -> list[dict]:
    """The seconds of each algorithm in TF32; of the dense ones with little to much memory."""
    given = tensors(layer, torch.float32)
    points = []
    with environment(GRAPHSCALE_TF32=1):
        algorithms = library.algorithms("FFTConv", given[:2], layer.attributes)
        for algorithm in [each for each in algorithms if each != "direct"]:
            for megabytes in SPECTRA_MB if algorithm.startswith("dense") else SPECTRA_MB[-1:]:
                with environment(GRAPHSCALE_CUDA_SPECTRA_MB=megabytes):
                    run = ours(layer, given, dict.fromkeys(passes(layer, given), algorithm))[
                        "forward"
                    ]
                    run()
                    found = times({"forward": recorded(run)})
                points.append(
                    {"layer": str(layer), "algorithm": algorithm, "spectra_mb": megabytes, **found}
                )
                print(
                    f"{layer!s:55} {algorithm:17} {megabytes:5} MB: forward "
                    f"{found['forward']['median'] * 1e6:9.1f} us",
                    flush=True,
                )
    return points


def draw_all(folder: Path, part: str, points: list[dict]) -> None:
    """Draw a heat map of the round trips' ratios for each precision."""
    for precision in PRECISIONS:
        done = [p for p in points if p["precision"] == precision and "round_trip" in p]
        if done:
            ratios = {(p["kernel"], p["in_channels"]): p["round_trip"]["ratio"] for p in done}
            title = f"times faster than cuDNN, {precision}"
            path = folder / f"fft_conv_cuda_{part}_{precision}.png"
            draw(ratios, "kernel", "channels", title, path)


def run_part(part: str, precisions: list[str], folder: Path, until: float) -> None:
    """Measure a part in this process, until the time `until` at most."""
    torch.backends.cudnn.benchmark = True
    # onnxruntime cannot share torch's default stream.
    with torch.cuda.stream(torch.cuda.Stream()):
        bandwidth = copy_bandwidth()
        found = {
            **provenance(onnxruntime=onnxruntime.__version__),
            "copy_bytes_per_second": bandwidth,
            "points": [],
        }
        print(f"{part} on {found['device']}: a copy moves {bandwidth / 1e12:.2f} TB/s", flush=True)
        jobs = [(layer, precision) for layer in PARTS.get(part, []) for precision in precisions]
        for layer, precision in jobs or [(layer, "tf32") for layer in TILES]:
            try:
                if time.time() > until:
                    raise TimeoutError("no time was left for it")
                if part == "tiles":
                    found["points"] += measure_tiles(layer)
                else:
                    point = measure(layer, precision)
                    seconds = point["forward"]["graphscale"]["median"]
                    point["share_of_copy"] = point["bytes"] / seconds / bandwidth
                    found["points"].append(point)
            except Exception as reason:  # the other layers are measured all the same
                print(f"{layer!s:55} {precision:9} failed: {reason}", flush=True)
                found["points"].append(
                    {"layer": str(layer), "precision": precision, "failed": str(reason)}
                )
                torch.cuda.empty_cache()
                torch.cuda.synchronize()  # raises, and so ends the part, on a broken device
            finally:
                record(folder / "fft_conv_cuda.json", part, found)
    if part in ("grid", "depthwise"):
        draw_all(folder, part, found["points"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="of those above")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no layer later")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # in this process, one part
    arguments = parser.parse_args()
    wanted = arguments.parts or [*PARTS, "tiles"]
    if unknown := set(wanted) - {*PARTS, "tiles"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available() or library.cuda_error():
        reason = library.cuda_error() if torch.cuda.is_available() else "torch sees no GPU"
        sys.exit(f"nothing to measure here: {reason}")
    precisions = arguments.precision or list(PRECISIONS)
    if arguments.until is not None:
        return run_part(wanted[0], precisions, arguments.out, arguments.until)
    until = time.time() + 60 * arguments.minutes
    options = [f"--precision={each}" for each in precisions]
    for part in wanted:
        command = [sys.executable, __file__, part, f"--until={until}", f"--out={arguments.out}"]
        if subprocess.run([*command, *options]).returncode:
            print(f"{part} ended early; what it measured is kept", flush=True)


if __name__ == "__main__":
    main()
