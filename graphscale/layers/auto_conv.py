"""torch's convolutions that choose, for each of their three passes, the fastest algorithm.

`accelerate` turns the nn.Conv1d and nn.Conv2d of a module into AutoConv1d and AutoConv2d. Each
measures, at its first call, torch's own convolution beside the algorithms of FFTConv, and keeps the
fastest. For other sizes of its input it measures only as `Budget` allows, and otherwise takes the
choice of the nearest size. fbcunn's SpatialConvolution was 'auto-tuned' in this way, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from graphscale.core.tuning import Candidates, Tuner, fastest
from graphscale.layers import library
from graphscale.layers.export import knows_our_operators
from graphscale.layers.fft_conv import (
    convolve,
    fft_conv,
    fft_conv_grad_input,
    fft_conv_grad_weight,
)
from graphscale.layers.operator import is_transformed

_TORCH = "torch"  # torch's own convolution; the other candidates are algorithms of FFTConv
_MAX_SIZES = 4  # of its input for which a layer measures, for each pass
_MAX_SHARE = 0.05  # of the running time, for measuring sizes after a layer's first
# Dilations, group, kernel shape, pads and strides, as fft_conv takes them.
_Window = tuple[list[int], int, list[int], list[int], list[int]]


class Budget:
    """How much time measuring may take: at most a share of the time since the first measurement.

    The first size of a layer's input is always measured; this decides about all others. ``clock``
    gives the time in seconds.
    """

    def __init__(
        self, max_share: float = _MAX_SHARE, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.max_share = max_share
        self._clock = clock
        self._started: float | None = None
        self._spent = 0.0

    def allows(self) -> bool:
        """Whether another size may be measured now."""
        if self._started is None:
            return True
        return self._spent <= self.max_share * (self._clock() - self._started)

    def spend(self, measurement: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Run a measurement, and count its time."""
        began = self._clock()
        if self._started is None:
            self._started = began
        try:
            return measurement()
        finally:
            self._spent += self._clock() - began


_BUDGET = Budget()  # of the process


def accelerate(module: nn.Module, *, measure: bool = True) -> nn.Module:
    """Let every nn.Conv1d and nn.Conv2d in `module`, in place, choose its algorithms.

    At its first call a layer measures torch's own convolution and those algorithms of FFTConv that
    may be faster, for the forward pass and, where gradients are wanted, for each gradient on its
    own; it keeps the fastest. The measurements are remembered on disk for this machine and version
    of torch. Inputs of other sizes are measured, up to four in a layer, while measuring takes less
    than 5 % of the running time; other sizes take the choice of the nearest measured one.

    Parameters, buffers, hooks and state-dict keys stay. Layers with kernels of one tap, and
    subclasses of torch's layers (parametrized ones are: parametrize afterwards), are left as they
    are. Under torch.compile and `graphscale.export` a layer takes the algorithm that it has chosen
    for its forward pass before, else torch's own convolution. Torch's own also serves other types
    than float32, meta tensors, autocast, torch.func, and every other trace or export.
    torch.jit.script cannot read these layers.

    Args:
        measure: False to measure nothing: layers take what an earlier run has measured, for this
            size or the nearest of this process, else torch's own convolution.

    Returns:
        `module` itself.

    Example:
        >>> network = graphscale.layers.accelerate(torchvision.models.vgg16())
    """
    for layer in module.modules():
        kind = _AUTOMATIC.get(type(layer), type(layer))
        if issubclass(kind, _Automatic) and max(layer.kernel_size) > 1:
            layer.__class__ = kind
            layer._measures = measure
    return module


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: _Window, algorithm: str
) -> Tensor:
    if algorithm != _TORCH:
        return fft_conv(x, weight, bias, *window, "NOTSET", algorithm)
    dilations, group, _, pads, strides = window
    begins, noughts = pads[: len(strides)], [0] * len(strides)
    return torch.convolution(x, weight, bias, strides, begins, dilations, False, noughts, group)


def _torch_gradient(
    wanted: int, grad: Tensor, x: Tensor, weight: Tensor, window: _Window
) -> Tensor:
    dilations, group, _, pads, strides = window
    begins = pads[: len(strides)]
    mask = [wanted == index for index in range(3)]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, strides, begins, dilations, False, [0] * len(begins), group, mask
    )[wanted]


def _grad_input(grad: Tensor, x: Tensor, weight: Tensor, window: _Window, algorithm: str) -> Tensor:
    if algorithm != _TORCH:
        return fft_conv_grad_input(grad, weight, x, *window, algorithm)
    return _torch_gradient(0, grad, x, weight, window)


def _grad_weight(
    grad: Tensor, x: Tensor, weight: Tensor, window: _Window, algorithm: str
) -> Tensor:
    if algorithm != _TORCH:
        return fft_conv_grad_weight(grad, x, weight, *window, algorithm)
    return _torch_gradient(1, grad, x, weight, window)


class _Convolution(torch.autograd.Function):
    """A convolution with an algorithm for each pass: forward, grad_input and grad_weight."""

    @staticmethod
    def forward(x, weight, bias, window: _Window, algorithms: dict[str, str]) -> Tensor:
        return _forward(x, weight, bias, window, algorithms["forward"])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.window, ctx.algorithms = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad, x, weight, ctx.window, ctx.algorithms["grad_input"])
        if ctx.needs_input_grad[1]:
            grad_weight = _grad_weight(grad, x, weight, ctx.window, ctx.algorithms["grad_weight"])
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum([0, *range(2, grad.dim())])
        return grad_x, grad_weight, grad_bias, None, None


def _only_torch_computes(x: Tensor, weight: Tensor) -> bool:
    """Whether FFTConv's kernels, or the autograd function around them, cannot take this call."""
    if isinstance(x, torch.fx.Proxy):
        return True
    if x.is_meta or weight.is_meta:
        return True
    if not x.dtype == weight.dtype == torch.float32 or x.numel() == 0:
        return True
    if torch.is_autocast_enabled(x.device.type):
        return True
    return not torch.compiler.is_compiling() and (
        is_transformed()
        or torch.jit.is_tracing()
        or isinstance(x, FakeTensor)
        or isinstance(weight, FakeTensor)
    )


class _Automatic:
    """What AutoConv1d and AutoConv2d share.

    `_direct` is torch's layer. `_chosen` holds choices for good by problem, `_measured` those that
    were measured, by kind of problem and then by shape of the input.
    """

    _direct: type[nn.Module]
    _measures = True
    _chosen: dict[str, str]
    _measured: dict[str, dict[tuple[int, ...], str]]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _only_torch_computes(input, weight):
            return self._direct._conv_forward(self, input, weight, bias)
        return convolve(self, input, weight, bias, self._choose_and_run)

    def _choose_and_run(self, x: Tensor, weight: Tensor, bias: Tensor | None, *window) -> Tensor:
        dilations, group, kernel_shape, pads, strides = window
        spatial = len(strides)
        if pads[:spatial] != pads[spatial:]:  # torch's own convolution pads both ends alike
            reversed_pairs = [pads[i + d] for d in reversed(range(spatial)) for i in (0, spatial)]
            x, pads = functional.pad(x, reversed_pairs), [0] * 2 * spatial
        window = (dilations, group, kernel_shape, pads, strides)
        learns = torch.is_grad_enabled() and weight.requires_grad
        if torch.compiler.is_compiling():
            key = _key("forward", x, weight, window, learns)
            chosen = self.__dict__.get("_chosen", {}) if knows_our_operators() else {}
            return _forward(x, weight, bias, window, chosen.get(key, _TORCH))
        algorithms = {"forward": self._choice("forward", x, weight, window, learns)}
        if torch.is_grad_enabled() and x.requires_grad:
            algorithms["grad_input"] = self._choice("grad_input", x, weight, window, learns)
        if learns:
            algorithms["grad_weight"] = self._choice("grad_weight", x, weight, window, learns)
        if set(algorithms.values()) == {_TORCH}:
            return _forward(x, weight, bias, window, _TORCH)
        return _Convolution.apply(x, weight, bias, window, algorithms)

    def _choice(self, pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> str:
        """The algorithm of a pass: chosen before, measured now, or that of the nearest size."""
        key = _key(pass_, x, weight, window, learns)
        chosen = self.__dict__.setdefault("_chosen", {})
        if key in chosen:
            return chosen[key]
        kind = _kind(pass_, x, weight, window, learns)
        measured = self.__dict__.setdefault("_measured", {}).setdefault(kind, {})
        tuner = _tuner(x.device)
        seconds = tuner.known(key)
        if seconds is None and len(measured) >= _MAX_SIZES:
            chosen[key] = _nearest(measured, x.shape)
            return chosen[key]
        if seconds is None and not (self._measures and (not measured or _BUDGET.allows())):
            return _nearest(measured, x.shape)  # not for good: there may be time to measure later
        if seconds is None:
            with torch.no_grad():
                candidates = partial(_candidates, pass_, x, weight, window, learns)
                seconds = _BUDGET.spend(lambda: tuner.seconds(key, candidates))
        chosen[key] = measured[tuple(x.shape)] = fastest(seconds, _TORCH)
        return chosen[key]


def _nearest(measured: dict[tuple[int, ...], str], shape: torch.Size) -> str:
    """The choice for the measured shape with the most similar sizes, as ratios."""

    def distance(other: tuple[int, ...]) -> float:
        return sum(abs(math.log(one / another)) for one, another in zip(shape, other))

    return measured[min(measured, key=distance)] if measured else _TORCH


def _key(pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> str:
    """The problem by which the tuner knows it."""
    return _kind(pass_, x, weight, window, learns, f"x={tuple(x.shape)} ")


def _kind(
    pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool, size: str = ""
) -> str:
    """All of a problem but the sizes of x."""
    dilations, group, _, pads, strides = window
    kind = "learning weight" if learns else "weight"
    sizes = f"{size}{kind}={tuple(weight.shape)} strides={strides} pads={pads}"
    order = "" if x.is_contiguous() else " not contiguous"  # in channels_last torch is faster
    return f"{pass_} {sizes} dilations={dilations} group={group}{order}"


def _candidates(pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> Candidates:
    """Functions that compute a pass by each algorithm; a weight that learns changes every time."""
    change = None
    if learns:  # so that nothing prepacked of it is kept
        weight = weight.clone()
        change = weight[(0,) * weight.dim()].fill_(1).neg_
    names = ("dilations", "group", "kernel_shape", "pads", "strides")
    attributes = dict(zip(names, window, strict=True))
    if pass_ == "forward":
        algorithms = library.algorithms("FFTConv", [x, weight], attributes)
        run = partial(_forward, x, weight, None, window)
    else:
        grad = torch.ones_like(_forward(x, weight, None, window, _TORCH))
        if pass_ == "grad_input":
            algorithms = library.algorithms("FFTConvGradInput", [grad, weight, x], attributes)
            run = partial(_grad_input, grad, x, weight, window)
        else:
            algorithms = library.algorithms("FFTConvGradWeight", [grad, x, weight], attributes)
            run = partial(_grad_weight, grad, x, weight, window)
    return {name: _turn(change, partial(run, name), x.device) for name in (_TORCH, *algorithms)}


def _turn(
    change: Callable[[], Tensor] | None, run: Callable[[], Tensor], device: torch.device
) -> Callable[[], None]:
    """Both, one after the other; a GPU is waited for."""

    def finished() -> None:
        if change is not None:
            change()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


class AutoConv1d(_Automatic, nn.Conv1d):
    """torch.nn.Conv1d whose passes take the fastest algorithm; made by `accelerate`."""

    _direct = nn.Conv1d


class AutoConv2d(_Automatic, nn.Conv2d):
    """torch.nn.Conv2d whose passes take the fastest algorithm; made by `accelerate`."""

    _direct = nn.Conv2d


_AUTOMATIC = {nn.Conv1d: AutoConv1d, nn.Conv2d: AutoConv2d}
_TUNERS: dict[str, Tuner] = {}


def _tuner(device: torch.device) -> Tuner:
    """The measurements of this torch on this device and this many threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    place = f"torch {torch.__version__} on {name}, {torch.get_num_threads()} threads"
    if place not in _TUNERS:
        _TUNERS[place] = Tuner(place)
    return _TUNERS[place]
