"""Calls with the same weights reuse the prepacked weights; changed weights are always seen."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from graphscale.layers import FFTConv2d, TemporalConv

# Short and long kernels: direct ones, spectra of many channels, spectra per channel.
LAYERS = [
    lambda: FFTConv2d(3, 8, 3),
    lambda: FFTConv2d(8, 8, 9, padding=4),
    lambda: FFTConv2d(8, 8, 9, groups=8, padding=4),
    lambda: TemporalConv(8, 8, 3),
]


def images(layer):
    torch.manual_seed(1)
    if isinstance(layer, TemporalConv):
        return torch.randn(2, 40, 8)
    return torch.randn(2, layer.in_channels, 33, 30)


def exact(layer, x):
    """The output in float64, a type for which no weights are prepacked."""
    with torch.no_grad():
        double = type(layer).forward(layer.double(), x.double())
    layer.float()
    return double


def check(layer, x):
    for _ in range(
        3
    ):  # the first call notes the weight, the second prepacks it, the third uses that
        with torch.no_grad():
            y = layer(x)
        wanted = exact(layer, x)
        assert (y - wanted).norm() <= 2e-6 * wanted.norm()


@pytest.mark.parametrize("make", LAYERS)
def test_every_change_is_seen(make):
    torch.manual_seed(0)
    layer = make()
    x = images(layer)
    check(layer, x)
    weight = layer.weight
    with torch.no_grad():
        weight.mul_(2)
    check(layer, x)
    weight.data.neg_()  # no version counter notices this, and only the signs change
    check(layer, x)
    weight.detach().numpy().reshape(-1)[-1] += 1
    check(layer, x)
    weight.data.copy_(weight.data.flip(0))  # the same values in other places
    check(layer, x)
    layer.load_state_dict(make().state_dict())
    check(layer, x)


@pytest.mark.parametrize("make", LAYERS)
def test_training_sees_every_step(make):
    torch.manual_seed(0)
    layer = make()
    x = images(layer)
    twin = make().double()
    twin.load_state_dict(layer.state_dict())
    for each in (layer, twin):
        optimizer = torch.optim.SGD(each.parameters(), 0.01)
        for _ in range(3):
            for _ in range(2):  # gradients of two batches with the same weights
                each(x.to(each.weight.dtype)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(layer.weight.double(), twin.weight, rtol=1e-5, atol=1e-6)


def test_attributes_and_sizes_are_told_apart():
    """One weight tensor in layers with other attributes, each with its own prepacked weights."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 2, 5, 5))
    layers = [
        FFTConv2d(8, 8, 5, groups=4),
        FFTConv2d(8, 8, 5, groups=4, padding=2),
        FFTConv2d(8, 8, 5, groups=4, stride=2),
        FFTConv2d(8, 8, 5, groups=4, dilation=3),
    ]
    for layer in layers:
        layer.weight = weight
    for size in (20, 37, 64):
        x = torch.randn(2, 8, size, size)
        for layer in layers * 3:
            wanted = torch.conv2d(
                x.double(),
                weight.double(),
                layer.bias.double(),
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
            )
            with torch.no_grad():
                y = layer(x)
            assert (y - wanted).norm() <= 2e-6 * wanted.norm()


def test_many_threads():
    torch.manual_seed(0)
    layer = FFTConv2d(8, 8, 9, padding=4)
    x = images(layer)
    wanted = exact(layer, x)
    results = []

    def work():
        with torch.no_grad():
            results.extend(layer(x) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    for y in results:
        assert (y - wanted).norm() <= 2e-6 * wanted.norm()


GROWTH = """
import os
import torch
from pathlib import Path
from graphscale.layers import FFTConv2d
torch.manual_seed(0)
x = torch.randn(1, 64, 64, 64)
layers = [FFTConv2d(64, 64, 31, padding=15) for _ in range(6)]  # spectra of tens of MiB each
def run(each):
    with torch.no_grad():
        each(x), each(x), each(x)
def peak():  # kB; getrusage would count what the parent process held
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
def growth(megabytes):
    os.environ["GRAPHSCALE_PREPACKED_MB"] = str(megabytes)
    run(layers[0])
    before = peak()
    for each in layers:
        run(each)
    return peak() - before
# A process reads the variable once, at its first call: a forked copy for each value is a process
# that has torch loaded already.
for megabytes in (1000, 100, 0):
    if os.fork() == 0:
        print(growth(megabytes), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux' /proc")
def test_memory_is_bounded():
    """GRAPHSCALE_PREPACKED_MB, which a process reads once, bounds the prepacked weights."""

    done = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    growth = dict(zip((1000, 100, 0), (int(line) / 1024 for line in done.stdout.split())))  # MiB
    assert growth[1000] > 100 + growth[0]
    assert growth[100] < 120
