"""Kernels that a layer computes from its parameters each time it is called.

weight_norm, spectral_norm and weight standardisation (StdConv) do so. In the traced graph such a
kernel is a value that nodes compute from initializers, and the plan resizes that value. The layer
goes on computing its kernel, so the parameter behind it must be resized instead: its *source*, the
one parameter of the kernel's shape. Its *companions* must follow: weight_norm's magnitudes,
spectral_norm's singular vectors.

In: the traced graph and the module (`find_computed_weights`). Out: a source for each computed
kernel; for a resized source, its companions' new values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import onnx_ir as ir
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from graphscale.core.plan import Plan
from graphscale.modules.module_path import module_path
from graphscale.modules.module_state import tensors_of
from graphscale.passes.spatial import rules
from graphscale.passes.spatial.registry import product_rule

rules.load()

_CONVOLUTIONS = (
    *(F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear),
)
_POWER_ITERATIONS = 15  # torch's own number when a layer gets its spectral norm


@dataclass(frozen=True)
class _Computed:
    """A computed kernel: the name of its source, and the path of the layer that computes it."""

    source: str
    layer: str


@dataclass(frozen=True)
class ComputedWeights:
    """The computed kernels of a module.

    Attributes:
        kernels: Name of the kernel's value in the traced graph -> its source and layer.
        read: Names of all parameters and buffers from which kernels are computed.
    """

    kernels: dict[str, _Computed] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.kernels)

    def source_of(self, name: str) -> str:
        """Name of the parameter behind a weight of the graph; the same name if not computed."""
        return self.kernels[name].source if name in self.kernels else name

    def renamed(self, plan: Plan) -> Plan:
        """`plan` with the names of sources in place of the names of computed kernels."""
        weights = [replace(each, name=self.source_of(each.name)) for each in plan.weights]
        layers = [replace(each, weight=self.source_of(each.weight)) for each in plan.layers]
        return replace(plan, weights=weights, layers=layers)

    @contextmanager
    def capture(self, module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """A context in which calls of `module` write the computed kernels into the dict."""
        captured: dict[str, torch.Tensor] = {}
        handles = []
        for name, computed in self.kernels.items():
            layer = module.get_submodule(computed.layer)
            mode = _CaptureKernel(name, captured)
            handles.append(layer.register_forward_pre_hook(mode.enter))
            handles.append(layer.register_forward_hook(mode.leave, always_call=True))
        try:
            yield captured
        finally:
            for handle in handles:
                handle.remove()


class _CaptureKernel(TorchFunctionMode):
    """Records the weight that one layer passes to its convolution or matrix product.

    A pair of hooks switches it on for the time of the layer's forward.
    """

    def __init__(self, name: str, captured: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.name = name
        self.captured = captured

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _CONVOLUTIONS:
            self.captured[self.name] = kwargs["weight"] if "weight" in kwargs else args[1]
        return function(*args, **kwargs)

    def enter(self, layer: nn.Module, inputs: tuple) -> None:
        self.__enter__()

    def leave(self, layer: nn.Module, inputs: tuple, output: object) -> None:
        self.__exit__(None, None, None)


def find_computed_weights(graph: ir.Graph, module: nn.Module) -> ComputedWeights:
    """The kernels that layers of `module` compute and that have a source.

    Args:
        graph: The graph that `trace_module` returned, before constants are folded.
        module: The traced module.
    """
    own = {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()}
    learned = dict(module.named_parameters(remove_duplicate=False))
    roots = _roots(graph)
    found = ComputedWeights()
    layers: set[str] = set()
    for node in graph:
        path = module_path(node)
        rule = product_rule(node)
        if rule is None or path is None or path in layers:
            continue
        index = rule.weight_inputs[0]
        kernel = node.inputs[index] if index < len(node.inputs) else None
        if kernel is None or kernel.is_initializer() or kernel not in roots or kernel.shape is None:
            continue
        shaped = [name for name in roots[kernel] if own.get(name) == tuple(kernel.shape)]
        # With two tensors of the kernel's shape (a pruned weight and its mask), either may be it.
        if len(shaped) == 1 and shaped[0] in learned:
            layers.add(path)
            found.kernels[kernel.name] = _Computed(shaped[0], path)
            found.read.update(roots[kernel])
    return found


def _roots(graph: ir.Graph) -> dict[ir.Value, set[str]]:
    """For each value that is computed from initializers alone, their names."""
    roots = {value: {name} for name, value in graph.initializers.items()}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if all(value in roots for value in inputs):
            union = set().union(*(roots[value] for value in inputs))
            roots.update(dict.fromkeys(node.outputs, union))
    return roots


def resized_companions(
    source: str, old: torch.Tensor, new: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """New values of the companions of `source`, when that changes from `old` to `new`.

    weight_norm's magnitudes are multiplied by the ratio of the norms, so that the kernel that the
    layer computes is the resized one. spectral_norm's singular vectors are found by power
    iteration; its kernel keeps a spectral norm of one.

    Args:
        source: Name of the parameter.
        old, new: Its values before and after it is resized.
        tensors: All tensors of the module, or of its state dict, by name.

    Returns:
        name -> tensor, in its old dtype; empty for a source without companions.
    """
    magnitude = _magnitude(source)
    if magnitude in tensors:
        g = tensors[magnitude]
        axes = [axis for axis in range(old.ndim) if g.ndim != old.ndim or g.shape[axis] == 1]
        before, after = (
            torch.linalg.vector_norm(each.detach().double(), dim=axes, keepdim=True)
            for each in (old, new)
        )
        ratio = torch.where(before > 0, after / before, torch.ones_like(before))
        return {magnitude: (g.detach().double() * ratio.reshape(g.shape)).to(g.dtype)}
    for u_name, v_name in _vectors(source, tensors):
        u, v = tensors[u_name].detach().double(), tensors[v_name].detach().double()
        axis = _spectral_axis(old.detach().double(), u, v)
        if axis is None:
            continue
        matrix = new.detach().double().movedim(axis, 0).flatten(1)
        for _ in range(_POWER_ITERATIONS):
            v = F.normalize(matrix.T @ u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        return {u_name: u.to(tensors[u_name].dtype), v_name: v.to(tensors[v_name].dtype)}
    return {}


def refresh_computed_weights(module: nn.Module) -> None:
    """Recompute the kernels that torch's older hooks keep as plain attributes of layers.

    These are torch.nn.utils.weight_norm and torch.nn.utils.spectral_norm.
    """
    for layer in module.modules():
        for hook in layer._forward_pre_hooks.values():
            options = {}
            if isinstance(hook, SpectralNorm):
                options["do_power_iteration"] = False
            elif not isinstance(hook, WeightNorm):
                continue
            with torch.no_grad():
                setattr(layer, hook.name, hook.compute_weight(layer, **options))


def _magnitude(source: str) -> str | None:
    """Name of weight_norm's magnitudes if `source` is named like its directions, else None."""
    if source.endswith(".original1"):  # torch.nn.utils.parametrizations.weight_norm
        return source.removesuffix("1") + "0"
    return source.removesuffix("_v") + "_g" if source.endswith("_v") else None


def _vectors(source: str, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Names of the pairs of singular vectors that belong to `source`."""
    if source.endswith("_orig"):  # torch.nn.utils.spectral_norm
        base = source.removesuffix("orig")
        pairs = [(f"{base}u", f"{base}v")]
    else:
        base = source.removesuffix("original")
        pairs = [(name, f"{name[:-1]}v") for name in tensors if name.startswith(base)]
        pairs = [(u, v) for u, v in pairs if u.endswith("._u")]
    return iter([pair for pair in pairs if pair[0] in tensors and pair[1] in tensors])


def _spectral_axis(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> int | None:
    """The kernel's axis that is the rows of spectral_norm's matrix; None if none fits.

    Of several axes of the right length, it is the one for which u·W·v is largest.
    """
    fitting = [
        axis
        for axis in range(weight.ndim)
        if weight.shape[axis] == len(u) and weight.numel() == len(u) * len(v)
    ]
    return max(
        fitting,
        key=lambda axis: float(u @ (weight.movedim(axis, 0).flatten(1) @ v)),
        default=None,
    )
