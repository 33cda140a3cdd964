"""FFT convolution on a GPU against cuDNN: python benchmarks/fft_conv_cuda.py [part ...]

Parts: goals, networks (five layers of convnet-benchmarks, batch 128), grid (kernel x channels),
depthwise, tiles (every plan of a few layers, and how much memory the spectra get); all of them by
default. Alternatives take turns; medians and minima of the turns, forward and forward + both
gradients, go to results/fft_conv_cuda.json together with the copy bandwidth of the device and the
relative error of each output against float64. cuDNN runs in benchmark mode, in NCHW and
channels_last, and the faster one counts. docs/cuda_predictions.md says what to expect.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional

from graphscale.layers import library
from graphscale.layers.operator import OPERATORS

RESULTS = Path(__file__).parent / "results"
TURNS = 15
WARM_UP = 3
PRECISIONS = {  # of both sides: type, whether tf32 is allowed
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}


@dataclass(frozen=True)
class Layer:
    batch: int
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    groups: int = 1
    pad: int = 0

    def __str__(self) -> str:
        kind = "depthwise" if self.groups > 1 else "dense"
        return (
            f"{kind} {self.in_channels}->{self.out_channels}, {self.size}x{self.size}, "
            f"batch {self.batch}: {self.kernel}x{self.kernel}"
        )


def depthwise(batch: int, channels: int, size: int, kernel: int) -> Layer:
    return Layer(batch, channels, channels, size, kernel, channels, kernel // 2)


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
}
TILES = {
    NETWORKS[1]: ["dense 16", "dense 32", "dense 48", "dense 64"],
    Layer(128, 256, 256, 32, 13): ["dense 32", "dense 48", "dense 64"],
    depthwise(32, 128, 56, 31): ["per_channel 64", "per_channel 72", "per_channel 96"],
    depthwise(32, 128, 56, 13): ["per_channel 32", "per_channel 64", "per_channel 72"],
}
SPECTRA_MB = (16, 32, 64, 256, 1024)


@contextlib.contextmanager
def environment(**values: object) -> Iterator[None]:
    """Environment variables that the library reads at every call."""
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


def times(alternatives: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """Median and least seconds of each, taking turns."""
    for run in alternatives.values():
        for _ in range(WARM_UP):
            run()
    seconds = {name: [] for name in alternatives}
    for _ in range(TURNS):
        for name, run in alternatives.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            end.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1000)
    return {
        name: {"median": statistics.median(each), "least": min(each)}
        for name, each in seconds.items()
    }


def copy_bandwidth() -> float:
    """Bytes read and written per second by a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / times({"copy": lambda: target.copy_(source)})["copy"]["median"]


def tensors(layer: Layer, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight and the gradient to y."""
    generator = torch.Generator("cuda").manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device="cuda")
    x = random(layer.batch, layer.in_channels, layer.size, layer.size)
    weight = random(
        layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel
    )
    out = layer.size + 2 * layer.pad - layer.kernel + 1
    grad = random(layer.batch, layer.out_channels, out, out)
    return x.to(dtype), weight.to(dtype), grad.to(dtype)


def passes(layer: Layer, x, weight, grad) -> tuple[Callable, Callable]:
    """graphscale's forward, and forward with both gradients."""
    window = {
        "group": layer.groups,
        "pads": [layer.pad] * 4,
        "strides": [1, 1],
        "dilations": [1, 1],
    }

    def forward():
        return OPERATORS["FFTConv"](x, weight, None, **window)

    def round_trip():
        return (
            forward(),
            OPERATORS["FFTConvGradInput"](grad, weight, x, **window),
            OPERATORS["FFTConvGradWeight"](grad, x, weight, **window),
        )

    return forward, round_trip


def cudnn_passes(layer: Layer, x, weight, grad, memory_format) -> tuple[Callable, Callable]:
    x, weight, grad = (t.contiguous(memory_format=memory_format) for t in (x, weight, grad))

    def forward():
        return functional.conv2d(x, weight, None, 1, layer.pad, 1, layer.groups)

    def round_trip():
        mask = [True, True, False]
        pads, ones = [layer.pad] * 2, [1, 1]
        return forward(), *torch.ops.aten.convolution_backward(
            grad, x, weight, None, ones, pads, ones, False, [0, 0], layer.groups, mask
        )

    return forward, round_trip


def error(y: torch.Tensor, layer: Layer, x, weight) -> float:
    """Relative error (norm) of the first image against float64."""
    wanted = functional.conv2d(
        x[:1].double().cpu(), weight.double().cpu(), None, 1, layer.pad, 1, layer.groups
    )
    return ((y[:1].double().cpu() - wanted).norm() / wanted.norm()).item()


def measure(layer: Layer, precision: str) -> dict:
    dtype, tf32 = PRECISIONS[precision]
    torch.backends.cudnn.allow_tf32 = tf32
    given = tensors(layer, dtype)
    with environment(GRAPHSCALE_TF32=int(tf32)):
        sides = {
            "graphscale": passes(layer, *given),
            "cudnn": cudnn_passes(layer, *given, torch.contiguous_format),
            "cudnn channels_last": cudnn_passes(layer, *given, torch.channels_last),
        }
        point = {"layer": str(layer), **asdict(layer), "precision": precision}
        for i, kind in enumerate(("forward", "round_trip")):
            found = times({name: side[i] for name, side in sides.items()})
            best = min(v["median"] for name, v in found.items() if name != "graphscale")
            point[kind] = {**found, "ratio": best / found["graphscale"]["median"]}
        point["error"] = {
            name: error(sides[name][0](), layer, *given[:2]) for name in ("graphscale", "cudnn")
        }
    planes = given[0].numel() + given[2].numel()
    point["bytes"] = planes * given[0].element_size()
    print(
        f"{layer!s:55} {precision:9} forward {point['forward']['ratio']:6.2f}x, "
        f"round trip {point['round_trip']['ratio']:6.2f}x, "
        f"{point['forward']['graphscale']['median'] * 1e6:9.1f} us, "
        f"error {point['error']['graphscale']:.1e} (cuDNN {point['error']['cudnn']:.1e})",
        flush=True,
    )
    return point


def measure_tiles(layer: Layer, plan: str) -> list[dict]:
    given = tensors(layer, torch.float32)
    points = []
    for megabytes in SPECTRA_MB if plan.startswith("dense") else SPECTRA_MB[-1:]:
        with environment(
            GRAPHSCALE_CUDA_PLAN=plan, GRAPHSCALE_CUDA_SPECTRA_MB=megabytes, GRAPHSCALE_TF32=1
        ):
            forward, round_trip = passes(layer, *given)
            found = times({"forward": forward, "round_trip": round_trip})
        points.append({"layer": str(layer), "plan": plan, "spectra_mb": megabytes, **found})
        print(
            f"{layer!s:55} {plan:15} {megabytes:5} MB: forward "
            f"{found['forward']['median'] * 1e6:9.1f} us, round trip "
            f"{found['round_trip']['median'] * 1e6:9.1f} us",
            flush=True,
        )
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="of those above")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    arguments = parser.parse_args()
    wanted = arguments.parts or [*PARTS, "tiles"]
    if unknown := set(wanted) - {*PARTS, "tiles"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available() or library.cuda_error():
        reason = library.cuda_error() if torch.cuda.is_available() else "torch sees no GPU"
        print(f"nothing to measure here: {reason}")
        return
    torch.backends.cudnn.benchmark = True
    bandwidth = copy_bandwidth()
    result = {
        "device": torch.cuda.get_device_name(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "copy_bytes_per_second": bandwidth,
        "points": [],
        "tiles": [],
    }
    print(f"{result['device']}: a copy moves {bandwidth / 1e12:.2f} TB/s", flush=True)
    for part in wanted:
        for layer in PARTS.get(part, []):
            for precision in arguments.precision or PRECISIONS:
                point = measure(layer, precision)
                seconds = point["forward"]["graphscale"]["median"]
                point["share_of_copy"] = point["bytes"] / seconds / bandwidth
                result["points"].append({"part": part, **point})
    if "tiles" in wanted:
        for layer, plans in TILES.items():
            for plan in plans:
                result["tiles"] += measure_tiles(layer, plan)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fft_conv_cuda.json").write_text(json.dumps(result, indent=1) + "\n")
    ratios = [p["round_trip"]["ratio"] for p in result["points"]]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"round trip: {min(ratios):.2f}x to {max(ratios):.2f}x, geometric mean {mean:.2f}x")


if __name__ == "__main__":
    main()
