"""FFT convolution in torch on a CPU: python benchmarks/fft_conv_torch.py

Parts can be named: inference (forward without gradients, constant weights), round_trip (forward and
both gradients, weights that change in each step), round_trip_grid (the same for kernel x channels);
all of them by default. The layers are those of fft_conv.py. 'graphscale' is torch's layer after
graphscale.layers.accelerate and its trials, and 'graphscale auto' is FFTConv2d; they are compared
with torch's layer in both memory formats. Candidates take turns. Medians and minima go to
results/fft_conv_torch.json, a heat map to results/fft_conv_round_trip_grid.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from fft_conv import GOALS, NETWORKS, Layer, grid, make_tensors, measure_parts, report
from turns import take_turns

from graphscale.layers import FFTConv2d, accelerate
from graphscale.layers.auto_conv import is_trying

# Without the goal of 32 channels and 31x31, whose gradient to the weights takes torch minutes.
ROUND_TRIPS = [*[each for each in GOALS if each.in_channels > 32], *NETWORKS]


def convolutions(layer: Layer) -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    """Each candidate: the layer, and images in its memory format."""
    x, w = map(torch.from_numpy, make_tensors(layer))
    channels = layer.in_channels, layer.out_channels
    sizes = {"padding": layer.pad, "groups": layer.groups, "bias": False}

    # All candidates have the same weights.
    def make(kind: type[torch.nn.Conv2d], memory_format: torch.memory_format):
        convolution = kind(*channels, layer.kernel, **sizes)
        convolution.weight = torch.nn.Parameter(w.clone(memory_format=memory_format))
        return convolution, x.to(memory_format=memory_format)

    candidates = {
        "graphscale": make(torch.nn.Conv2d, torch.contiguous_format),
        "graphscale auto": make(FFTConv2d, torch.contiguous_format),
        "torch": make(torch.nn.Conv2d, torch.contiguous_format),
    }
    accelerate(candidates["graphscale"][0])
    if layer.groups == 1:
        candidates["torch channels_last"] = make(torch.nn.Conv2d, torch.channels_last)
    return candidates


def inference(convolution: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """A function that runs the forward pass without gradients."""

    def run() -> torch.Tensor:
        with torch.no_grad():
            return convolution(x)

    return run


def step(convolution: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """A function that changes the weights and runs forward and both gradients, as training does."""
    x = x.detach().requires_grad_()
    one = convolution.weight.data[0, 0, 0, 0]

    def run() -> None:
        one.neg_()
        y = convolution(x)
        torch.autograd.grad(y, (x, convolution.weight), y.detach())

    return run


def measure(layer: Layer, make_candidate: Callable) -> dict[str, object]:
    """The point of a layer; `make_candidate` is `inference` or `step`."""
    made = convolutions(layer)
    candidates = {name: make_candidate(*each) for name, each in made.items()}
    while is_trying(made["graphscale"][0]):
        candidates["graphscale"]()
    return report(layer, take_turns(candidates))


PARTS: dict[str, Callable[[], list[dict[str, object]]]] = {
    "inference": lambda: [measure(layer, inference) for layer in [*GOALS, *NETWORKS]],
    "round_trip": lambda: [measure(layer, step) for layer in ROUND_TRIPS],
    "round_trip_grid": lambda: [measure(layer, step) for layer in grid()],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []])
    arguments = parser.parse_args()
    columns = {"round_trip_grid": "channels"}
    measure_parts(arguments.parts, PARTS, "fft_conv_torch.json", columns)


if __name__ == "__main__":
    main()
