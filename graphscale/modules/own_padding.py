"""Layers that pad their own input, such as the 'SAME' layers of networks that come from TensorFlow.

Their forward computes the padding from the input's size and then calls a convolution or a pooling
without padding. In the traced graph that is a Pad and a Conv, both of the layer.
`merge_own_padding` makes one node of them, so that one mapping is solved. Where the layer's own
formula does not give the padding that the graph wants, `replace_own_padding` turns the layer into
the one of torch that it is derived from, which takes any padding; `restore_own_padding` turns it
back.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from torch import nn

from graphscale.modules.module_path import module_path
from graphscale.passes.graph.weight_source import tensor_of, weight_source

PADS_ITSELF = "graphscale.pads_itself"  # metadata of nodes into which a layer's Pad was merged

_KINDS = ("Conv", "MaxPool", "AveragePool")
_REPLACED = "graphscale_own_layer"  # attribute: what `restore_own_padding` needs
_SWITCH = "same_pad"  # timm's attribute of layers that compute their weight and pad their input
_REMEMBERED = ("padding", "count_include_pad")


def merge_own_padding(model: ir.Model, module: nn.Module) -> None:
    """Merge each Pad of a layer with the convolution or pooling behind it, in place.

    Layers of torch itself are left as they are, because their padding is an attribute.
    """
    for node in list(model.graph):
        pad = node.inputs[0].producer() if node.op_type in _KINDS and node.inputs else None
        path = module_path(node)
        if pad is None or pad.op_type != "Pad" or path is None or module_path(pad) != path:
            continue
        layer = module.get_submodule(path)
        if type(layer).__module__.startswith("torch.nn."):
            continue
        pads = _zero_padding(pad, -math.inf if node.op_type == "MaxPool" else 0.0)
        own = list(node.attributes.get_ints("pads", [0] * (len(pads or ()) - 4)))
        if pads is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            continue
        if node.op_type == "AveragePool":
            if any(own) and not node.attributes.get_int("count_include_pad", 0):
                continue
            node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        half = len(pads) // 2
        added = [*pads[2:half], *pads[half + 2 :]]
        node.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, added)])
        node.metadata_props[PADS_ITSELF] = "1"
        node.replace_input_with(0, pad.inputs[0])
        model.graph.remove(pad, safe=True)


def _zero_padding(pad: ir.Node, fill: float) -> list[int] | None:
    """The numbers of a Pad that only this reader sees and that fills height and width by `fill`."""
    if len(pad.outputs[0].uses()) != 1 or pad.outputs[0].is_graph_output():
        return None
    if pad.attributes.get_string("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return None
    held = weight_source(pad.inputs[1])
    if held is None:
        return None
    value = 0.0
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        source = weight_source(pad.inputs[2])
        if source is None:
            return None
        value = float(tensor_of(source).numpy().reshape(()))
    pads = np.asarray(tensor_of(held).numpy()).reshape(-1).tolist()
    half = len(pads) // 2
    outside = any(pads[:2]) or any(pads[half : half + 2]) or min(pads) < 0
    return None if outside or value != fill else pads


def pads_itself(node: ir.Node) -> bool:
    """Whether a Pad of the node's layer was merged into the node."""
    return PADS_ITSELF in node.metadata_props


def formula_gives(node: ir.Node, kernel, dilation, begin, end) -> bool:
    """Whether TensorFlow's 'SAME' formula gives this padding for the node's input."""
    rank = len(kernel)
    strides = node.attributes.get_ints("strides", [1] * rank)
    shape = node.inputs[0].shape
    if shape is None or not all(isinstance(size, int) for size in tuple(shape)[2:]):
        return False
    for size, k, stride, d, first, last in zip(
        tuple(shape)[2:], kernel, strides, dilation, begin, end
    ):
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * d + 1 - size)
        if (first, last) != (total // 2, total - total // 2):
            return False
    return True


def replace_own_padding(layer: nn.Module) -> None:
    """Let the layer pad by its attribute `padding`, as torch's own layers do."""
    if hasattr(layer, _REPLACED):
        return
    remembered = {name: getattr(layer, name) for name in _REMEMBERED if hasattr(layer, name)}
    setattr(layer, _REPLACED, (type(layer), remembered))
    if hasattr(layer, _SWITCH):
        setattr(layer, _SWITCH, False)
    else:
        kinds = (kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn."))
        layer.__class__ = next(kinds)
        if isinstance(layer, nn.AvgPool2d):
            layer.count_include_pad = True


def restore_own_padding(layer: nn.Module) -> None:
    """Undo `replace_own_padding`."""
    replaced = vars(layer).pop(_REPLACED, None)
    if replaced is None:
        return
    kind, remembered = replaced
    if hasattr(layer, _SWITCH):
        setattr(layer, _SWITCH, True)
    else:
        layer.__class__ = kind
    for name, value in remembered.items():
        setattr(layer, name, value)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        twice = (
            layer.padding if not isinstance(layer.padding, str) else [0] * len(layer.kernel_size)
        )
        layer._reversed_padding_repeated_twice = [pad for pad in reversed(twice) for _ in (0, 1)]


def follow_own_padding(layer: nn.Module, source: nn.Module) -> None:
    """Let `layer` pad by its attribute if `source`, the same layer of another copy, does."""
    restore_own_padding(layer)
    if hasattr(source, _REPLACED):
        replace_own_padding(layer)
