"""Convolutions that take the faster of torch's own way and FFT, found out at their first call.

fbcunn's SpatialConvolution did the same: 'auto-tuned', it explored its code paths once per problem
size and kept the fastest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphscale.layers.fft_conv import FFTConv1d, FFTConv2d
from graphscale.passes.find_convolutions import SMALLEST_KERNEL
from graphscale.tuning import Tuner


def accelerate(module: nn.Module) -> nn.Module:
    """Let every nn.Conv1d and nn.Conv2d in `module`, in place, choose its path by measurement.

    Parameters, buffers, hooks and state-dict keys stay. At its first call with a shape a layer runs
    both ways (forward, and backward where gradients are wanted) and keeps the faster; the choice is
    remembered on disk for this machine and torch version. Layers whose kernels are too small for
    FFT, and subclasses of torch's layers, are left as they are. Under torch.compile and export a
    layer takes the path that it has chosen before, else torch's own.

    Returns:
        `module` itself.
    """
    for layer in module.modules():
        kind = _AUTOMATIC.get(type(layer))
        if kind is not None and max(layer.kernel_size) >= SMALLEST_KERNEL:
            layer.__class__ = kind
    return module


class _Automatic:
    """What AutoConv1d and AutoConv2d share: `_direct` and `_fft` are the two ways."""

    _direct: type[nn.Module]
    _fft: type[nn.Module]
    _chosen: dict[str, str]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        path = self._path(input, weight, bias)
        way = self._fft if path == "fft" else self._direct
        return way._conv_forward(self, input, weight, bias)

    def _path(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
        if x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled():
            return "direct"
        training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        key = self._key(x, training)
        chosen = self.__dict__.setdefault("_chosen", {})
        if key not in chosen:
            if torch.compiler.is_compiling() or x.numel() == 0:
                return "direct"
            timing = _tuner(x.device).timing(key, lambda: self._two_ways(x, weight, bias, training))
            chosen[key] = timing.faster
        return chosen[key]

    def _key(self, x: Tensor, training: bool) -> str:
        window = (self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        sizes = f"{tuple(x.shape)} {tuple(self.weight.shape)} {window} {x.requires_grad}"
        return f"{'training' if training else 'inference'} {sizes}"

    def _two_ways(self, x: Tensor, weight: Tensor, bias: Tensor | None, training: bool) -> tuple:
        return tuple(self._way(way, x, weight, bias, training) for way in (self._direct, self._fft))

    def _way(self, way, x: Tensor, weight: Tensor, bias: Tensor | None, training: bool) -> Callable:
        wanted = [each for each in (x, weight, bias) if each is not None and each.requires_grad]

        def run() -> None:
            with torch.set_grad_enabled(training):
                y = way._conv_forward(self, x, weight, bias)
            if training:
                torch.autograd.grad(y, wanted, torch.ones_like(y))
            if x.is_cuda:
                torch.cuda.synchronize(x.device)

        return run


class AutoConv1d(_Automatic, nn.Conv1d):
    """torch.nn.Conv1d that takes the faster path; `accelerate` makes them."""

    _direct, _fft = nn.Conv1d, FFTConv1d


class AutoConv2d(_Automatic, nn.Conv2d):
    """torch.nn.Conv2d that takes the faster path; `accelerate` makes them."""

    _direct, _fft = nn.Conv2d, FFTConv2d


_AUTOMATIC = {nn.Conv1d: AutoConv1d, nn.Conv2d: AutoConv2d}
_TUNERS: dict[str, Tuner] = {}


def _tuner(device: torch.device) -> Tuner:
    """The measurements of this torch on this device and this many threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    place = f"torch {torch.__version__} on {name}, {torch.get_num_threads()} threads"
    if place not in _TUNERS:
        _TUNERS[place] = Tuner(place)
    return _TUNERS[place]
