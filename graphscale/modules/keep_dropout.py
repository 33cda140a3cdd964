"""Keep Dropout and drop-path layers when a module is traced.

Modules are traced in evaluation mode, where these layers do nothing and leave no node. A graph that
will be trained in the module's place needs them. So `mark_dropout` lets each layer put a marker
node behind its output while the module is traced, and `place_dropout` turns the markers into ONNX's
Dropout nodes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from graphscale.convert.operators.normalization import DROPS

_DOMAIN = "graphscale.trace"
_KINDS = {
    nn.Dropout: "element",
    nn.Dropout1d: "channel",
    nn.Dropout2d: "channel",
    nn.Dropout3d: "channel",
}
# timm's and torchvision's stochastic depth, by class name: graphscale depends on neither package.
_DROP_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}


def dropped_layers(module: nn.Module) -> dict[nn.Module, tuple[float, str]]:
    """The layers that can be kept: layer -> (probability, what is dropped at once).

    The second is 'element', 'channel' or 'image'.
    """
    found = {}
    for layer in module.modules():
        if type(layer) in _KINDS:
            found[layer] = (layer.p, _KINDS[type(layer)])
        elif type(layer).__name__ in _DROP_PATHS:
            probability = getattr(layer, _DROP_PATHS[type(layer).__name__], None)
            if getattr(layer, "mode", "row") == "row" and getattr(layer, "scale_by_keep", True):
                found[layer] = (probability, "image")
    return {layer: (p, kind) for layer, (p, kind) in found.items() if p}


def lost_layers(module: nn.Module) -> list[str]:
    """Paths of layers that are random in training but cannot be kept."""
    kept = dropped_layers(module)
    names = ("Drop", "Stochastic")
    return [
        path
        for path, layer in module.named_modules()
        if layer not in kept
        and any(part in type(layer).__name__ for part in names)
        and (getattr(layer, "p", 0) or getattr(layer, "drop_prob", 0))
    ]


def mark_dropout(module: nn.Module) -> list:
    """Let the dropout layers of `module` mark their outputs; returns the hooks' handles."""
    return [
        layer.register_forward_hook(_Mark(probability, kind))
        for layer, (probability, kind) in dropped_layers(module).items()
    ]


class _Mark:
    """Forward hook: adds a marker node, which passes the tensor through, to the traced graph."""

    def __init__(self, probability: float, kind: str) -> None:
        self.attributes = {"probability": float(probability), "drops": kind}

    def __call__(self, layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """The output behind the marker."""
        return torch.onnx.ops.symbolic(
            f"{_DOMAIN}::Mark",
            (output,),
            self.attributes,
            dtype=output.dtype,
            shape=output.shape,
            version=1,
        )


def place_dropout(model: ir.Model) -> None:
    """Turn the marks of `mark_dropout` into ONNX's Dropout nodes."""
    for node in list(model.graph):
        if node.domain != _DOMAIN:
            continue
        ratio = np.asarray(node.attributes["probability"].value, np.float32)
        value = ir.Value(name=f"{node.outputs[0].name}.ratio")
        value.const_value = ir.Tensor(ratio, name=value.name)
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape([])
        model.graph.initializers[value.name] = value
        kind = node.attributes["drops"].value
        node.domain, node.op_type, node.version = "", "Dropout", None
        node.resize_inputs(2)
        node.replace_input_with(1, value)
        node.attributes.clear()
        if kind != "element":
            node.metadata_props[DROPS] = kind
    model.opset_imports.pop(_DOMAIN, None)
