"""FFT convolution on a CPU against onnxruntime, torch and scipy: python benchmarks/fft_conv.py

Claim: the forward pass is as many times faster as GOALS says. Parts can be named: goals, networks
(five layers of convnet-benchmarks, batch 128), grid (kernel x channels), depthwise, long
(one-dimensional kernels); all of them by default. All of them run forward in onnxruntime;
fft_conv_torch.py measures torch and training.

'graphscale' is FFTConv with the algorithm that was measured to be the fastest, as `graphscale
accelerate` writes it; 'graphscale auto' is FFTConv with the algorithm of the cost model. Candidates
take turns on as many threads as the machine has cores. Medians and minima are written to
results/fft_conv.json, heat maps to results/fft_conv_*.png. Peak memory is that of a process of its
own for each candidate, minus that of a process that runs a tiny layer only.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import scipy
import scipy.signal
import torch
from heat_map import draw
from memory import peak
from turns import THREADS, Times, record, take_turns

from graphscale.core.runtime import get_library_path, session
from graphscale.core.tuning import measure
from graphscale.layers import library

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Layer:
    """A convolution with stride 1."""

    batch: int
    in_channels: int
    out_channels: int
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    groups: int = 1
    pad: int = 0

    def __str__(self) -> str:
        image, kernel = ("x".join(map(str, sizes)) for sizes in (self.image, self.kernel))
        kind = "depthwise" if self.groups == self.in_channels > 1 else "dense"
        return (
            f"{kind} {self.in_channels}->{self.out_channels}, {image}, batch {self.batch}: {kernel}"
        )


GOALS = {  # the forward pass is at least this many times faster than the best alternative
    Layer(4, 64, 64, (64, 64), (13, 13)): 6.0,
    Layer(4, 64, 64, (64, 64), (31, 31)): 15.0,
    Layer(4, 32, 32, (128, 128), (31, 31)): 20.0,
    Layer(4, 64, 64, (64, 64), (9, 9)): 2.5,
    Layer(4, 128, 128, (56, 56), (31, 31), groups=128, pad=15): 3.0,
    Layer(4, 128, 128, (56, 56), (51, 51), groups=128, pad=25): 6.0,
    Layer(4, 64, 64, (64, 64), (3, 3)): 0.95,
}
NETWORKS = [  # convnet-benchmarks' five
    Layer(128, 3, 96, (128, 128), (11, 11)),
    Layer(128, 64, 64, (64, 64), (9, 9)),
    Layer(128, 128, 128, (32, 32), (9, 9)),
    Layer(128, 128, 128, (16, 16), (7, 7)),
    Layer(128, 384, 384, (13, 13), (3, 3)),
]
GRID_KERNELS = (3, 5, 7, 9, 11, 13)
GRID_CHANNELS = (3, 16, 32, 64, 128)
DEPTHWISE_KERNELS = (7, 9, 11, 13, 21, 31, 51)
DEPTHWISE_IMAGES = (14, 28, 56, 112)
LONG_TAPS = (1024, 4096, 16384, 65536)
MAX_DIRECT_TAPS = 16384  # with more, a call of onnxruntime or torch takes many seconds


def make_tensors(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """The input and the kernel, float32, scaled so that outputs have unit variance."""
    random = np.random.default_rng(0)
    x = random.standard_normal((layer.batch, layer.in_channels, *layer.image), np.float32)
    fan_in = layer.in_channels // layer.groups
    w = random.standard_normal((layer.out_channels, fan_in, *layer.kernel), np.float32)
    return x, w / np.float32(np.sqrt(w[0].size))


def open_session(
    layer: Layer, w: np.ndarray, domain: str, algorithm: str = "auto", spins: bool = True
) -> onnxruntime.InferenceSession:
    """A model of one node: Conv with domain '', FFTConv with domain 'graphscale'.

    Threads spin for a while after a run, unless sessions take turns without a rest.
    """
    dims = len(layer.image)
    ours = {"algorithm": algorithm} if domain else {}
    node = onnx.helper.make_node(
        "FFTConv" if domain else "Conv",
        ["x", "w"],
        ["y"],
        domain=domain,
        group=layer.groups,
        pads=[layer.pad] * (2 * dims),
        **ours,
    )
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [value("x", shape=[layer.batch, layer.in_channels, *layer.image])],
        [value("y", shape=None)],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    if domain:
        opsets.append(onnx.helper.make_opsetid(domain, 1))
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    if not spins:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return session(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def torch_convolution(layer: Layer) -> Callable[..., torch.Tensor]:
    """torch's convolution of x and w with the layer's padding and groups."""
    convolve = torch.conv1d if len(layer.image) == 1 else torch.conv2d
    return lambda x, w: convolve(x, w, None, 1, layer.pad, 1, layer.groups)


def fastest_algorithm(layer: Layer) -> str:
    """FFTConv's fastest algorithm for the layer, by measurement."""
    x, w = make_tensors(layer)
    attributes = {"group": layer.groups, "pads": [layer.pad] * (2 * len(layer.image))}
    algorithms = library.algorithms(
        "FFTConv", [torch.from_numpy(x), torch.from_numpy(w)], attributes
    )

    def make_candidate(algorithm: str) -> Callable[[], object]:
        opened = open_session(layer, w, "graphscale", algorithm, spins=False)
        return lambda: opened.run(None, {"x": x})

    seconds = measure({algorithm: make_candidate(algorithm) for algorithm in algorithms})
    return min(seconds, key=seconds.__getitem__)


def forward_candidates(layer: Layer, algorithm: str) -> dict[str, Callable[[], object]]:
    """The candidates by name, as functions that compute the layer once."""
    x, w = make_tensors(layer)
    ours, auto = (open_session(layer, w, "graphscale", each) for each in (algorithm, "auto"))
    theirs = open_session(layer, w, "")
    convolve = torch_convolution(layer)
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    candidates = {
        "graphscale": lambda: ours.run(None, {"x": x}),
        "graphscale auto": lambda: auto.run(None, {"x": x}),
        "onnxruntime": lambda: theirs.run(None, {"x": x}),
        "torch": lambda: convolve(tx, tw),
    }
    if len(layer.image) == 2:
        cx, cw = (t.to(memory_format=torch.channels_last) for t in (tx, tw))
        candidates["torch channels_last"] = lambda: convolve(cx, cw)
    return candidates


def relative_error(layer: Layer) -> float:
    """The relative error, in the norm, of FFTConv's output for one image, against float64."""
    x, w = make_tensors(layer)
    (y,) = open_session(layer, w, "graphscale").run(None, {"x": x[:1].repeat(layer.batch, 0)})
    exact = torch_convolution(layer)(
        torch.from_numpy(x[:1]).double(), torch.from_numpy(w).double()
    ).numpy()
    return float(np.linalg.norm(y[:1] - exact) / np.linalg.norm(exact))


def report(layer: Layer, times: dict[str, Times], **more: object) -> dict[str, object]:
    """Print and return a point; ratio is how many times faster graphscale is than the next best."""
    others = [each for name, each in times.items() if not name.startswith("graphscale")]
    ours = times["graphscale"]
    ratio = min(each.median for each in others) / ours.median
    ratio_of_minima = min(each.minimum for each in others) / ours.minimum
    shown = ", ".join(f"{name} {1e3 * each.median:.2f}" for name, each in times.items())
    extras = "".join(f", {name} {value}" for name, value in more.items())
    print(f"{layer}: {shown} ms; {ratio:.2f}x (minima {ratio_of_minima:.2f}x){extras}", flush=True)
    return {
        "layer": asdict(layer),
        "seconds": {name: asdict(each) for name, each in times.items()},
        "ratio": ratio,
        "ratio_of_minima": ratio_of_minima,
        **more,
    }


def measure_forward(layer: Layer, **more: object) -> dict[str, object]:
    """The point of a layer, with `more` entries."""
    algorithm = fastest_algorithm(layer)
    candidates = forward_candidates(layer, algorithm)
    if layer.groups == layer.in_channels > 1 and min(layer.kernel) > 13:
        candidates.pop("torch channels_last", None)  # takes a second per call
    return report(layer, take_turns(candidates), algorithm=algorithm, **more)


def measure_goals() -> list[dict[str, object]]:
    """The layers of GOALS, with errors and peak memory."""
    points = []
    for layer, goal in GOALS.items():
        error = float(f"{relative_error(layer):.2g}")
        memory = {
            name: peak_memory(layer, name) for name in ("nothing", "graphscale", "onnxruntime")
        }
        ours, direct = (memory[name] - memory["nothing"] for name in ("graphscale", "onnxruntime"))
        points.append(
            measure_forward(layer, goal=goal, error=error, memory_ratio=round(ours / direct, 2))
        )
    return points


def measure_long() -> list[dict[str, object]]:
    """One-dimensional layers with long kernels, also in scipy."""
    points = []
    for taps in LONG_TAPS:
        layer = Layer(1, 4, 4, (4 * taps,), (taps,))
        algorithm = fastest_algorithm(layer) if taps <= MAX_DIRECT_TAPS else "auto"
        candidates = forward_candidates(layer, algorithm)
        if taps > MAX_DIRECT_TAPS:
            candidates = {"graphscale": candidates["graphscale"]}
        x, w = make_tensors(layer)

        def through_scipy(convolve: Callable[..., np.ndarray], x=x[0], w=w) -> list[np.ndarray]:
            flipped = w[..., ::-1]
            return [convolve(x, each, mode="valid", axes=-1).sum(0) for each in flipped]

        candidates["scipy oaconvolve"] = functools.partial(through_scipy, scipy.signal.oaconvolve)
        candidates["scipy fftconvolve"] = functools.partial(through_scipy, scipy.signal.fftconvolve)
        points.append(report(layer, take_turns(candidates)))
    return points


def grid() -> list[Layer]:
    """Layers of every kernel with every number of channels."""
    return [
        Layer(4, channels, max(channels, 16), (64, 64), (kernel, kernel))
        for kernel in GRID_KERNELS
        for channels in GRID_CHANNELS
    ]


def measure_depthwise() -> list[dict[str, object]]:
    """Depthwise layers of every kernel on every size of image."""
    return [
        measure_forward(
            Layer(4, 64, 64, (image, image), (kernel, kernel), groups=64, pad=kernel // 2)
        )
        for kernel in DEPTHWISE_KERNELS
        for image in DEPTHWISE_IMAGES
    ]


def peak_memory(layer: Layer, candidate: str) -> int:
    """Peak bytes of a process that runs the layer by this candidate a few times."""
    command = [sys.executable, __file__, "--peak", candidate, json.dumps(asdict(layer))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(candidate: str, text: str) -> None:
    """In the process of its own: run the layer, given as JSON, and print the peak."""
    fields = json.loads(text)
    layer = Layer(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    if candidate == "nothing":
        tiny = Layer(1, 1, 1, (8, 8), (3, 3))
        x, w = make_tensors(tiny)
        open_session(tiny, w, "graphscale").run(None, {"x": x})
    else:
        x, w = make_tensors(layer)
        model = open_session(layer, w, "graphscale" if candidate == "graphscale" else "")
        for _ in range(3):
            model.run(None, {"x": x})
    print(peak())


def draw_points(points: list[dict], columns: str, file: str) -> None:
    """Draw the points' ratios by kernel and by `columns`: 'channels' or 'image'."""
    places = {
        "channels": lambda layer: layer["in_channels"],
        "image": lambda layer: layer["image"][0],
    }
    ratios = {(p["layer"]["kernel"][0], places[columns](p["layer"])): p["ratio"] for p in points}
    title = "times faster than the better of onnxruntime and torch"
    draw(ratios, "kernel", columns, title, RESULTS / file)


PARTS: dict[str, Callable[[], list[dict[str, object]]]] = {
    "goals": measure_goals,
    "networks": lambda: [measure_forward(layer) for layer in NETWORKS],
    "grid": lambda: [measure_forward(layer) for layer in grid()],
    "depthwise": measure_depthwise,
    "long": measure_long,
}


def measure_parts(
    chosen: list[str],
    parts: dict[str, Callable[[], list[dict[str, object]]]],
    file: str,
    columns: dict[str, str],
) -> None:
    """Measure the chosen parts, or all, into results/`file`; draw the parts named in `columns`."""
    get_library_path()  # fails before anything is measured where the library is not built
    torch.set_num_threads(THREADS)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # without earlier measurements
    for part in chosen or list(parts):
        points = parts[part]()
        record(RESULTS / file, part, points)
        if part in columns:
            draw_points(points, columns[part], f"fft_conv_{part}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []])
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak_memory(*arguments.peak)
        return
    measure_parts(
        arguments.parts, PARTS, "fft_conv.json", {"grid": "channels", "depthwise": "image"}
    )


if __name__ == "__main__":
    main()
