"""Convolutions whose passes each take the fastest way, found out at their first call.

fbcunn's SpatialConvolution did the same: 'auto-tuned', it explored its code paths once per problem
size and kept the fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.core.tuning import Tuner, Ways, fastest
from graphscale.layers import library
from graphscale.layers.export import knows_our_operators
from graphscale.layers.fft_conv import (
    convolve,
    fft_conv,
    fft_conv_grad_input,
    fft_conv_grad_weight,
)

_TORCH = "torch"  # the way that is not ours; the others are algorithms
# Dilations, group, kernel shape, pads and strides, as fft_conv takes them.
_Window = tuple[list[int], int, list[int], list[int], list[int]]


def accelerate(module: nn.Module) -> nn.Module:
    """Let every nn.Conv1d and nn.Conv2d in `module`, in place, choose its way by measurement.

    Parameters, buffers, hooks and state-dict keys stay. At its first call with a shape a layer runs
    torch's own convolution and the algorithms of FFTConv worth it, for the forward pass and, where
    gradients are wanted, for each of them on its own, and keeps the fastest; the choices are
    remembered on disk for this machine and torch version. Layers with kernels of one tap, and
    subclasses of torch's layers (parametrized ones are: parametrize afterwards), are left as they
    are. Under torch.compile and `graphscale.export` a layer takes the way that it has chosen for
    its forward pass before, else torch's own; torch's also for other types than float32, under
    autocast and torch.func, and in every other trace or export. torch.jit.script cannot read these
    layers.

    Returns:
        `module` itself.
    """
    for layer in module.modules():
        kind = _AUTOMATIC.get(type(layer))
        if kind is not None and max(layer.kernel_size) > 1:
            layer.__class__ = kind
    return module


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: _Window, way: str) -> Tensor:
    if way != _TORCH:
        return fft_conv(x, weight, bias, *window, "NOTSET", way)
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


def _grad_input(grad: Tensor, x: Tensor, weight: Tensor, window: _Window, way: str) -> Tensor:
    if way != _TORCH:
        return fft_conv_grad_input(grad, weight, x, *window, way)
    return _torch_gradient(0, grad, x, weight, window)


def _grad_weight(grad: Tensor, x: Tensor, weight: Tensor, window: _Window, way: str) -> Tensor:
    if way != _TORCH:
        return fft_conv_grad_weight(grad, x, weight, *window, way)
    return _torch_gradient(1, grad, x, weight, window)


class _Convolution(torch.autograd.Function):
    """A convolution whose three passes go their own ways: forward, grad_input, grad_weight."""

    @staticmethod
    def forward(x, weight, bias, window: _Window, ways: dict[str, str]) -> Tensor:
        return _forward(x, weight, bias, window, ways["forward"])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.window, ctx.ways = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad, x, weight, ctx.window, ctx.ways["grad_input"])
        if ctx.needs_input_grad[1]:
            grad_weight = _grad_weight(grad, x, weight, ctx.window, ctx.ways["grad_weight"])
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum([0, *range(2, grad.dim())])
        return grad_x, grad_weight, grad_bias, None, None


def _only_torch_computes(x: Tensor, weight: Tensor) -> bool:
    """Other types, and what an autograd function of our own has no rule for."""
    if isinstance(x, torch.fx.Proxy):
        return True
    if not x.dtype == weight.dtype == torch.float32 or x.numel() == 0:
        return True
    if torch.is_autocast_enabled(x.device.type):
        return True
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


class _Automatic:
    """What AutoConv1d and AutoConv2d share; `_direct` is torch's layer."""

    _direct: type[nn.Module]
    _chosen: dict[str, str]

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
            way = chosen.get(key, _TORCH)
            return _forward(x, weight, bias, window, way)
        ways = {"forward": self._way("forward", x, weight, window, learns)}
        if torch.is_grad_enabled() and x.requires_grad:
            ways["grad_input"] = self._way("grad_input", x, weight, window, learns)
        if learns:
            ways["grad_weight"] = self._way("grad_weight", x, weight, window, learns)
        if set(ways.values()) == {_TORCH}:
            return _forward(x, weight, bias, window, _TORCH)
        return _Convolution.apply(x, weight, bias, window, ways)

    def _way(self, pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> str:
        key = _key(pass_, x, weight, window, learns)
        chosen = self.__dict__.setdefault("_chosen", {})
        if key not in chosen:
            tuner = _tuner(x.device)
            with torch.no_grad():
                seconds = tuner.seconds(key, lambda: _measurable(pass_, x, weight, window, learns))
            chosen[key] = fastest(seconds, _TORCH)
        return chosen[key]


def _key(pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> str:
    dilations, group, _, pads, strides = window
    kind = "learning weight" if learns else "weight"
    sizes = f"x={tuple(x.shape)} {kind}={tuple(weight.shape)} strides={strides} pads={pads}"
    order = "" if x.is_contiguous() else " not contiguous"  # in channels_last torch is faster
    return f"{pass_} {sizes} dilations={dilations} group={group}{order}"


def _measurable(pass_: str, x: Tensor, weight: Tensor, window: _Window, learns: bool) -> Ways:
    """Every way to compute a pass; a weight that learns is another one at each call."""
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
    return {way: _turn(change, partial(run, way), x.device) for way in (_TORCH, *algorithms)}


def _turn(
    change: Callable[[], Tensor] | None, run: Callable[[], Tensor], device: torch.device
) -> Callable[[], None]:
    """Both, done only when a GPU is, too."""

    def finished() -> None:
        if change is not None:
            change()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


class AutoConv1d(_Automatic, nn.Conv1d):
    """torch.nn.Conv1d whose passes take the fastest way; `accelerate` makes them."""

    _direct = nn.Conv1d


class AutoConv2d(_Automatic, nn.Conv2d):
    """torch.nn.Conv2d whose passes take the fastest way; `accelerate` makes them."""

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
