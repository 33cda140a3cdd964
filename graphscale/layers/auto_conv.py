"""Convolutions that choose the fastest algorithm for each of their three passes (fbcunn's tuner).

`accelerate` takes a module and turns its nn.Conv1d and nn.Conv2d into AutoConv1d and AutoConv2d. At
its first call such a layer measures torch's own convolution, the algorithms of FFTConv and perhaps
a matrix product, and remembers the fastest for the forward pass and for either gradient. In the
steps that follow, `WholeNetwork` finds out which of these choices make the network faster as a
whole; the others go back to torch. Results have the memory format that torch's own have, so that
the layers behind stay fast. For inputs of other sizes a layer measures as far as `Budget` allows,
and otherwise takes the choice of the nearest measured size. fbcunn's SpatialConvolution was
auto-tuned layer by layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from graphscale.core.arguments import instance
from graphscale.core.trials import Change
from graphscale.core.tuning import Candidates, Tuner, fastest
from graphscale.layers import library, matrix_conv
from graphscale.layers.autograd import is_cast
from graphscale.layers.export import knows_our_operators
from graphscale.layers.fft_conv import (
    convolve,
    fft_conv,
    fft_conv_grad_input,
    fft_conv_grad_weight,
)
from graphscale.layers.operator import is_transformed
from graphscale.layers.whole_network import WholeNetwork

_TORCH = "torch"  # torch's own convolution; the other candidates are algorithms of FFTConv ...
_MATRIX = "matrix"  # ... and matrix_conv, for filters that outnumber the pixels
# On a GPU, FFTConv is less accurate in float16 than torch's own convolution.
_TYPES = (torch.float32, torch.bfloat16)
_MAX_SIZES = 4  # input sizes that a layer measures, for each pass
_MAX_SHARE = 0.05  # of the running time: limit for measuring input sizes after a layer's first
# Dilations, group, kernel shape, pads and strides, in the order of fft_conv's arguments.
_Attributes = tuple[list[int], int, list[int], list[int], list[int]]


class Budget:
    """Limits the time of measuring to a share of the time since the first measurement.

    The first size of each layer's input is always measured; the budget decides about all others.

    Args:
        max_share: The share, between 0 and 1.
        clock: Returns the time in seconds.
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
        """Run ``measurement``, count its time and return what it returns."""
        began = self._clock()
        if self._started is None:
            self._started = began
        try:
            return measurement()
        finally:
            self._spent += self._clock() - began


_BUDGET = Budget()  # one for all layers of the process


def accelerate(module: nn.Module, *, measure: bool = True) -> nn.Module:
    """Let every nn.Conv1d and nn.Conv2d in `module` choose its algorithms, in place.

    At its first call a layer measures torch's own convolution and those algorithms of FFTConv that
    may be faster: for the forward pass and, where gradients are wanted, for each gradient on its
    own. The measurements are stored on disk for this machine and version of torch. Up to three more
    sizes of a layer's input are measured while measuring takes less than 5 % of the running time;
    all others take the choice of the nearest measured size.

    On a CPU, the next 10 to 90 steps of `module` (a forward pass, in training with the backward
    pass that belongs to it) are trials: they compute the same, with some of these choices or with
    torch's own convolutions. Then those choices stay with which a step of the whole network was the
    fastest; torch's own, where that was not 5 % faster. Each size of the network's input and each
    memory format has trials of its own. Before they end, layers use what was at least 1.5 times
    faster alone.

    Parameters, buffers, hooks and state-dict keys stay. Layers with kernels of one tap and
    subclasses of torch's layers are left as they are (parametrized layers are subclasses:
    parametrize them afterwards). Under torch.compile and `graphscale.export` a layer takes the
    algorithm that it has chosen for its forward pass before, or torch's own convolution. Torch's
    own also computes types other than float32 and bfloat16 (which are measured apart, also under
    autocast), meta tensors, calls under torch.func, and every other trace or export.
    torch.jit.script cannot read these layers.

    Args:
        module: A network, or a single nn.Conv1d or nn.Conv2d.
        measure: False to measure nothing: layers take what an earlier run has measured for this
            size, the choice of the nearest size measured in this process, or torch's own; the
            whole network is not tried.

    Returns:
        `module` itself.

    Example:
        >>> network = graphscale.layers.accelerate(torchvision.models.vgg16())
    """
    instance("module", module, nn.Module, "a torch module")
    network = WholeNetwork()
    for layer in module.modules():
        kind = _AUTOMATIC.get(type(layer), type(layer))
        if issubclass(kind, _Automatic) and max(layer.kernel_size) > 1:
            layer.__class__ = kind
            layer._measures = measure
            layer._network = network
    return module


def is_trying(module: nn.Module) -> bool:
    """Whether the last step of an accelerated `module` was before the end of its trials."""
    networks = {
        layer._network
        for layer in module.modules()
        if isinstance(layer, _Automatic) and layer._network is not None
    }
    return any(network.settled is None for network in networks)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, attributes: _Attributes, algorithm: str
) -> Tensor:
    dilations, group, _, pads, strides = attributes
    if algorithm == _MATRIX:
        return matrix_conv.forward(x, weight, bias, strides, pads[:2])
    if algorithm != _TORCH:
        y = fft_conv(x, weight, bias, *attributes, "NOTSET", algorithm)
        return matrix_conv.in_format_of(x, y)
    begins, zeros = pads[: len(strides)], [0] * len(strides)
    return torch.convolution(x, weight, bias, strides, begins, dilations, False, zeros, group)


def _torch_gradient(
    wanted: int, grad: Tensor, x: Tensor, weight: Tensor, attributes: _Attributes
) -> Tensor:
    dilations, group, _, pads, strides = attributes
    begins = pads[: len(strides)]
    mask = [wanted == index for index in range(3)]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, strides, begins, dilations, False, [0] * len(begins), group, mask
    )[wanted]


def _grad_input(
    grad: Tensor, x: Tensor, weight: Tensor, attributes: _Attributes, algorithm: str
) -> Tensor:
    if algorithm == _MATRIX:
        return matrix_conv.grad_input(grad, x, weight, attributes[-1], attributes[-2][:2])
    if algorithm != _TORCH:
        to_x = fft_conv_grad_input(grad, weight, x, *attributes, algorithm)
        return matrix_conv.in_format_of(x, to_x)
    return _torch_gradient(0, grad, x, weight, attributes)


def _grad_weight(
    grad: Tensor, x: Tensor, weight: Tensor, attributes: _Attributes, algorithm: str
) -> Tensor:
    if algorithm == _MATRIX:
        return matrix_conv.grad_weight(grad, x, weight, attributes[-1], attributes[-2][:2])
    if algorithm != _TORCH:
        to_weight = fft_conv_grad_weight(grad, x, weight, *attributes, algorithm)
        return matrix_conv.in_format_of(weight, to_weight)
    return _torch_gradient(1, grad, x, weight, attributes)


class _Convolution(torch.autograd.Function):
    """A convolution with an algorithm for each pass: forward, grad_input and grad_weight."""

    @staticmethod
    def forward(x, weight, bias, attributes: _Attributes, algorithms: dict[str, str]) -> Tensor:
        return _forward(x, weight, bias, attributes, algorithms["forward"])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.attributes, ctx.algorithms = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad, x, weight, ctx.attributes, ctx.algorithms["grad_input"])
        if ctx.needs_input_grad[1]:
            grad_weight = _grad_weight(
                grad, x, weight, ctx.attributes, ctx.algorithms["grad_weight"]
            )
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum([0, *range(2, grad.dim())])
        return grad_x, grad_weight, grad_bias, None, None


def _computed_type(tensor: Tensor) -> torch.dtype:
    """The type in which torch's own convolution computes with `tensor`, which autocast may set."""
    device = tensor.device.type
    if is_cast(tensor) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def _only_torch_computes(x: Tensor, weight: Tensor) -> bool:
    """Whether this call is none for FFTConv's kernels and the autograd function around them."""
    if isinstance(x, torch.fx.Proxy):
        return True
    if x.is_meta or weight.is_meta:
        return True
    if not _computed_type(x) == _computed_type(weight) in _TYPES or x.numel() == 0:
        return True
    return not torch.compiler.is_compiling() and (
        is_transformed()
        or torch.jit.is_tracing()
        or isinstance(x, FakeTensor)
        or isinstance(weight, FakeTensor)
    )


@dataclass(frozen=True)
class _Alone:
    """The fastest algorithm of a pass, alone.

    Attributes:
        seconds: What torch's own convolution takes.
        gain: How many times faster the algorithm is.
    """

    algorithm: str = _TORCH
    seconds: float = 0.0
    gain: float = 1.0

    @classmethod
    def of(cls, seconds: dict[str, float]) -> _Alone:
        """The fastest by the measured seconds of all candidates."""
        algorithm = fastest(seconds, _TORCH)
        return cls(algorithm, seconds[_TORCH], seconds[_TORCH] / seconds[algorithm])


class _Automatic:
    """The common part of AutoConv1d and AutoConv2d: chooses algorithms and runs them.

    `_direct` is torch's layer, `_network` what the layers of a network share. `_alone` maps
    problems (`_key`) to choices of the layer alone that are final, `_measured` problems without the
    size of x (`_kind`) to the measured ones by shape of x. `_chosen` maps problems to the algorithm
    of the last call that was no trial.
    """

    _direct: type[nn.Module]
    _measures = True
    _network: WholeNetwork | None = None
    _alone: dict[str, _Alone]
    _measured: dict[str, dict[tuple[int, ...], _Alone]]
    _chosen: dict[str, str]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _only_torch_computes(input, weight):
            return self._direct._conv_forward(self, input, weight, bias)
        # As autocast does it: before the convolution, and back in the gradients.
        input, weight, bias = (
            each if each is None else each.to(_computed_type(each))
            for each in (input, weight, bias)
        )
        return convolve(self, input, weight, bias, self._choose_and_run)

    def _choose_and_run(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *attributes
    ) -> Tensor:
        dilations, group, kernel_shape, pads, strides = attributes
        spatial = len(strides)
        if pads[:spatial] != pads[spatial:]:  # torch's own convolution pads both ends equally
            reversed_pairs = [pads[i + d] for d in reversed(range(spatial)) for i in (0, spatial)]
            x, pads = functional.pad(x, reversed_pairs), [0] * 2 * spatial
        attributes = (dilations, group, kernel_shape, pads, strides)
        learns = torch.is_grad_enabled() and weight.requires_grad
        if torch.compiler.is_compiling():
            key = _key("forward", x, weight, attributes, learns)
            chosen = self.__dict__.get("_chosen", {}) if knows_our_operators() else {}
            algorithm = chosen.get(key, _TORCH)
            if algorithm == _MATRIX:  # an exported model shall have a Conv node
                algorithm = _TORCH
            return _forward(x, weight, bias, attributes, algorithm)
        hands_back = torch.is_grad_enabled() and x.requires_grad
        passes = ["forward"] + ["grad_input"] * hands_back + ["grad_weight"] * learns
        network = None
        if self._measures and x.is_cpu:
            network = self._network = self._network or WholeNetwork()
            network.enter(self, x, learns or hands_back)
        algorithms = self._algorithms(network, passes, x, weight, attributes, learns)
        if set(algorithms.values()) == {_TORCH}:
            y = _forward(x, weight, bias, attributes, _TORCH)
        else:
            y = _Convolution.apply(x, weight, bias, attributes, algorithms)
        if network is not None:
            network.leave(y)
        return y

    def _algorithms(
        self,
        network: WholeNetwork | None,
        passes: list[str],
        x: Tensor,
        weight: Tensor,
        attributes: _Attributes,
        learns: bool,
    ) -> dict[str, str]:
        """The algorithm of each pass: what is fastest alone, as far as the network takes it."""
        settled = network.settled if network is not None else None
        call = (self, len(passes), learns, x.shape, x.dtype, x.is_contiguous())
        if settled is not None and call in settled:
            return settled[call]
        keys = {pass_: _key(pass_, x, weight, attributes, learns) for pass_ in passes}
        alone = {
            pass_: self._choice_alone(pass_, key, x, weight, attributes, learns)
            for pass_, key in keys.items()
        }
        changes = {
            keys[pass_]: Change(each.seconds, each.gain)
            for pass_, each in alone.items()
            if each.algorithm != _TORCH
        }
        made = changes if network is None else network.selected(changes)
        algorithms = {
            pass_: each.algorithm if keys[pass_] in made else _TORCH
            for pass_, each in alone.items()
        }
        if network is None or not network.trying:
            chosen = self.__dict__.setdefault("_chosen", {})
            chosen.update((keys[pass_], algorithm) for pass_, algorithm in algorithms.items())
        if settled is not None:
            settled[call] = algorithms
        return algorithms

    def _choice_alone(
        self,
        pass_: str,
        key: str,
        x: Tensor,
        weight: Tensor,
        attributes: _Attributes,
        learns: bool,
    ) -> _Alone:
        """The choice for a pass: known from before, measured now, or that of the nearest size."""
        final = self.__dict__.setdefault("_alone", {})
        if key in final:
            return final[key]
        kind = _kind(pass_, x, weight, attributes, learns)
        measured = self.__dict__.setdefault("_measured", {}).setdefault(kind, {})
        tuner = _tuner(x.device)
        seconds = tuner.known(key)
        if seconds is None and len(measured) >= _MAX_SIZES:
            final[key] = _nearest(measured, x.shape)
            return final[key]
        if seconds is None and not (self._measures and (not measured or _BUDGET.allows())):
            return _nearest(measured, x.shape)  # not final: there may be time to measure later
        if seconds is None:
            with torch.no_grad():
                candidates = partial(_candidates, pass_, x, weight, attributes, learns)
                seconds = _BUDGET.spend(lambda: tuner.seconds(key, candidates))
        final[key] = measured[tuple(x.shape)] = _Alone.of(seconds)
        return final[key]


def _nearest(measured: dict[tuple[int, ...], _Alone], shape: torch.Size) -> _Alone:
    """The choice for the measured shape nearest to ``shape``, by the ratios of their sizes."""

    def distance(other: tuple[int, ...]) -> float:
        return sum(abs(math.log(one / another)) for one, another in zip(shape, other))

    return measured[min(measured, key=distance)] if measured else _Alone()


def _key(pass_: str, x: Tensor, weight: Tensor, attributes: _Attributes, learns: bool) -> str:
    """Names a pass with its sizes and attributes, for the tuner."""
    return _kind(pass_, x, weight, attributes, learns, f"x={tuple(x.shape)} ")


def _kind(
    pass_: str, x: Tensor, weight: Tensor, attributes: _Attributes, learns: bool, size: str = ""
) -> str:
    """Names a pass with all of its sizes and attributes but those of x."""
    dilations, group, _, pads, strides = attributes
    kind = "learning weight" if learns else "weight"
    sizes = f"{size}{kind}={tuple(weight.shape)} strides={strides} pads={pads}"
    # In channels_last torch is faster, and what FFTConv takes and gives is converted.
    order = "" if x.is_contiguous() else " converted, not contiguous"
    type_ = "" if x.dtype == torch.float32 else f" {x.dtype}".replace("torch.", "")
    return f"{pass_} {sizes} dilations={dilations} group={group}{type_}{order}"


def _candidates(
    pass_: str, x: Tensor, weight: Tensor, attributes: _Attributes, learns: bool
) -> Candidates:
    """Functions that compute a pass by each algorithm; a weight that learns changes in each run."""
    change = None
    if learns:  # as in training, where weights prepacked for the call before are of no use
        weight = weight.clone()
        change = weight[(0,) * weight.dim()].fill_(1).neg_
    names = ("dilations", "group", "kernel_shape", "pads", "strides")
    named = dict(zip(names, attributes, strict=True))
    if pass_ == "forward":
        algorithms = library.algorithms("FFTConv", [x, weight], named)
        run = partial(_forward, x, weight, None, attributes)
    else:
        grad = torch.ones_like(_forward(x, weight, None, attributes, _TORCH))
        if pass_ == "grad_input":
            algorithms = library.algorithms("FFTConvGradInput", [grad, weight, x], named)
            run = partial(_grad_input, grad, x, weight, attributes)
        else:
            algorithms = library.algorithms("FFTConvGradWeight", [grad, x, weight], named)
            run = partial(_grad_weight, grad, x, weight, attributes)
    if _matrix_suits(pass_, x, weight, attributes):
        algorithms = [_MATRIX, *algorithms]
    return {
        name: _changed_and_finished(change, partial(run, name), x.device)
        for name in (_TORCH, *algorithms)
    }


def _matrix_suits(pass_: str, x: Tensor, weight: Tensor, attributes: _Attributes) -> bool:
    dilations, group, _, pads, strides = attributes
    if weight.dim() != 4 or group != 1 or set(dilations) != {1} or not x.is_cpu:
        return False
    return matrix_conv.suits(pass_, x, weight, strides, pads[:2])


def _changed_and_finished(
    change: Callable[[], Tensor] | None, run: Callable[[], Tensor], device: torch.device
) -> Callable[[], None]:
    """A function that calls ``change`` and ``run``, and waits for a GPU to finish."""

    def finished() -> None:
        if change is not None:
            change()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


class AutoConv1d(_Automatic, nn.Conv1d):
    """torch.nn.Conv1d that runs each pass by the fastest algorithm; `accelerate` makes it."""

    _direct = nn.Conv1d


class AutoConv2d(_Automatic, nn.Conv2d):
    """torch.nn.Conv2d that runs each pass by the fastest algorithm; `accelerate` makes it."""

    _direct = nn.Conv2d


_AUTOMATIC = {nn.Conv1d: AutoConv1d, nn.Conv2d: AutoConv2d}
_TUNERS: dict[str, Tuner] = {}


def _tuner(device: torch.device) -> Tuner:
    """The measurements of this version of torch on ``device`` with this number of threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    runtime = f"torch {torch.__version__} on {name}, {torch.get_num_threads()} threads"
    if runtime not in _TUNERS:
        _TUNERS[runtime] = Tuner(runtime, default=_TORCH)
    return _TUNERS[runtime]
