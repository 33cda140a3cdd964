"""Give the layers of a torch module the kernel sizes and paddings of a graph traced from it.

In: a module whose weights already have the graph's shapes, and the graph. Out: the same module,
changed in place. The table `_EDITORS` at the end holds one function per kind of layer, which sets
the layer's attributes. Padding that torch's layers cannot have (unequal or negative) is done by a
hook in front of the layer, so that the layer keeps its class and its weights their names.
Shrinking, growing and growing in the middle of training all use `edit_layers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn
from torch.nn import functional as F

from graphscale.convert.operators.padding import split_pads
from graphscale.core.lookups import TOKEN_VALUES
from graphscale.core.node_names import node_name
from graphscale.modules.module_path import module_path
from graphscale.modules.own_padding import (
    formula_gives,
    pads_itself,
    replace_own_padding,
    restore_own_padding,
)
from graphscale.passes.graph.weight_source import tensor_of, weight_source


class CannotEditError(Exception):
    """A layer cannot have the graph's sizes; the text is the reason."""


class PadInput:
    """Forward pre-hook: pads the layer's input by `pads` (F.pad's order; negative ones crop)."""

    def __init__(self, pads: Sequence[int], value: float) -> None:
        self.pads = tuple(pads)
        self.value = value

    def __call__(self, layer: nn.Module, inputs: tuple) -> tuple:
        """The layer's arguments with the first one padded."""
        return (F.pad(inputs[0], self.pads, value=self.value), *inputs[1:])


class CropOutput:
    """Forward hook: crops the layer's output; `pads` are negative numbers in F.pad's order."""

    def __init__(self, pads: Sequence[int]) -> None:
        self.pads = tuple(pads)

    def __call__(self, layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """The cropped output."""
        return F.pad(output, self.pads)


@dataclass(frozen=True)
class _KernelGeometry:
    """Kernel size and padding of a Conv, ConvTranspose or pooling node; negative padding crops."""

    kernel: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    include_pad: bool


def edit_layers(module: nn.Module, graph: ir.Graph) -> None:
    """Set kernel sizes, paddings and output sizes of all layers of `module` to those in `graph`.

    Args:
        module: Changed in place. Its weights already have the shapes of the graph.
        graph: To shrink: the shrunk graph that was traced from the module. To grow: the target's
            graph, restored from the plan (`restore(plan.target).graph`).

    Raises:
        CannotEditError: a layer cannot have the graph's sizes; says why.
    """
    nodes: dict[nn.Module, list[ir.Node]] = {}
    for node in graph:
        path = module_path(node)
        if path is not None:
            nodes.setdefault(module.get_submodule(path), []).append(node)
    for path, layer in module.named_modules():
        _token_attributes(layer, nodes.get(layer, []))
        _offset_attributes(layer)
        _window_attributes(layer, nodes.get(layer, []))
        if isinstance(getattr(layer, "fc1", None), nn.Conv2d) and hasattr(layer, _EXPECTED):
            setattr(layer, _EXPECTED, layer.fc1.weight.shape[-1])
        if isinstance(getattr(layer, "partition_op", None), nn.Module):
            _partition_attributes(layer, nodes.get(layer.partition_op, []))
        if isinstance(getattr(layer, "proj", None), nn.Conv2d):
            _patch_embedding(layer, nodes.get(layer.proj, []))
        editor = next((_EDITORS[kind] for kind in type(layer).__mro__ if kind in _EDITORS), None)
        if editor is None:
            continue
        try:
            editor(layer, nodes.get(layer, []))
        except CannotEditError as reason:
            raise CannotEditError(f"layer {path!r} ({type(layer).__name__}): {reason}") from None


def _set(layer: nn.Module, name: str, values: Sequence[int | float]) -> None:
    """Set an attribute that has a value per axis; one number stays one where all are equal."""
    old, values = getattr(layer, name), tuple(values)
    if isinstance(old, int | float):
        if (old,) * len(values) == values:
            return
        setattr(layer, name, values[0] if len(set(values)) == 1 else values)
    elif old is None or isinstance(old, str) or tuple(old) != values:
        setattr(layer, name, values)


def _hook(layer: nn.Module, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> None:
    """Replace the layer's `PadInput` hook by one of this padding, or by none if it is zero."""
    _remove_hooks(layer._forward_pre_hooks, PadInput)
    pads = _pairs(begin, end)
    if any(pads):
        layer.register_forward_pre_hook(PadInput(pads, value))


def _remove_hooks(hooks: dict[int, Callable], kind: type) -> None:
    for key in [key for key, hook in hooks.items() if isinstance(hook, kind)]:
        del hooks[key]


def _pairs(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Padding in F.pad's order: (before, after) of the last axis first."""
    return [pad for pair in zip(reversed(begin), reversed(end)) for pad in pair]


def _geometry(node: ir.Node) -> _KernelGeometry:
    """The geometry of a node; a Pad node that shrinking put before it to crop counts as padding."""
    if node.op_type in ("Conv", "FFTConv", "ConvTranspose"):
        kernel = tuple(node.inputs[1].shape[2:])
    else:
        kernel = tuple(node.attributes.get_ints("kernel_shape"))
    rank = len(kernel)
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    source = node.inputs[0].producer()
    if source is not None and source.op_type == "Pad" and source.name == f"{node_name(node)}.crop":
        begin, end = _pads_of(source, rank)
        pads = [pad + crop for pad, crop in zip(pads, (*begin, *end))]
    return _KernelGeometry(
        kernel=kernel,
        begin=tuple(pads[:rank]),
        end=tuple(pads[rank:]),
        dilation=tuple(node.attributes.get_ints("dilations", [1] * rank)),
        output_padding=tuple(node.attributes.get_ints("output_padding", [0] * rank)),
        include_pad=bool(node.attributes.get_int("count_include_pad", 0)),
    )


def _pads_of(node: ir.Node, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each of the last `rank` axes."""
    if "pads" in node.attributes:
        pads = list(node.attributes.get_ints("pads"))
    else:
        held = weight_source(node.inputs[1])
        if held is None:
            raise CannotEditError("its padding is computed")
        pads = tensor_of(held).numpy().tolist()
    half = len(pads) // 2
    return tuple(pads[half - rank : half]), tuple(pads[2 * half - rank :])


def _only(found: list, what: str):
    """The value that is the same for all calls of a layer; None if the layer is not called."""
    if any(each != found[0] for each in found):
        raise CannotEditError(f"it is called several times and would need a different {what} each")
    return found[0] if found else None


def _geometry_of_calls(nodes: list[ir.Node], *kinds: str) -> _KernelGeometry | None:
    return _only([_geometry(node) for node in nodes if node.op_type in kinds], "padding")


def _convolution(layer: nn.Module, nodes: list[ir.Node]) -> None:
    rank = layer.weight.ndim - 2
    _set(layer, "kernel_size", layer.weight.shape[2:])
    geometry = _geometry_of_calls(nodes, "Conv", "FFTConv")
    if geometry is None:
        return
    _set(layer, "dilation", geometry.dilation)
    begin, end = geometry.begin, geometry.end
    if _pads_itself(layer, nodes, geometry):
        return
    if layer.padding_mode == "zeros":
        own, first, last = split_pads(begin, end)
        if not isinstance(layer.padding, str) or begin != end or begin != _named_padding(layer):
            _set(layer, "padding", own)
        layer._reversed_padding_repeated_twice = _pairs(own, own)
        _hook(layer, first, last)
        return
    if any(begin) or any(end):
        raise CannotEditError(f"it would pad by zeros beside padding_mode={layer.padding_mode!r}")
    padded = [_pads_of(node, rank) for node in nodes if node.op_type == "Pad"]
    begin, end = _only(padded, "padding") or (begin, end)
    layer._reversed_padding_repeated_twice = _pairs(begin, end)
    _set(layer, "padding", begin)


def _pads_itself(layer: nn.Module, nodes: list[ir.Node], geometry: _KernelGeometry) -> bool:
    """Whether the layer's forward computes the padding of `geometry`, for every call, by itself.

    A layer that computes another one is turned into a layer that pads by numbers.
    """
    marked = [node for node in nodes if pads_itself(node)]
    if not marked:
        return False
    restore_own_padding(layer)
    numbers = geometry.kernel, geometry.dilation, geometry.begin, geometry.end
    if all(formula_gives(node, *numbers) for node in marked):
        _hook(layer, (), ())
        return True
    replace_own_padding(layer)
    return False


def _named_padding(layer: nn.Module) -> tuple[int, ...]:
    """Padding before each axis that padding='same' or 'valid' amounts to."""
    same = layer.padding == "same"
    return tuple(same * d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size))


def _transposed(layer: nn.Module, nodes: list[ir.Node]) -> None:
    _set(layer, "kernel_size", layer.weight.shape[2:])
    geometry = _geometry_of_calls(nodes, "ConvTranspose")
    if geometry is None:
        return
    # torch cuts both ends by the same amount: here by the smaller one. A hook crops the rest.
    own = [min(ends) for ends in zip(geometry.begin, geometry.end)]
    first = [cut - begin for cut, begin in zip(own, geometry.begin)]
    last = [cut - end for cut, end in zip(own, geometry.end)]
    _set(layer, "dilation", geometry.dilation)
    _set(layer, "padding", own)
    _set(layer, "output_padding", geometry.output_padding)
    _remove_hooks(layer._forward_hooks, CropOutput)
    if any(first) or any(last):
        layer.register_forward_hook(CropOutput(_pairs(first, last)))


def _pool(layer: nn.Module, nodes: list[ir.Node]) -> None:
    geometry = _geometry_of_calls(nodes, "MaxPool", "AveragePool", "LpPool")
    if geometry is None:
        return
    largest = isinstance(layer, _MAX_POOLS)
    _set(layer, "kernel_size", geometry.kernel)
    if largest:
        _set(layer, "dilation", geometry.dilation)
    if _pads_itself(layer, nodes, geometry):
        return
    # torch pads both ends of a pooling layer alike, and by half the window at most.
    equal = [
        b == e and 0 <= b <= k // 2
        for b, e, k in zip(geometry.begin, geometry.end, geometry.kernel)
    ]
    own = [b if same else 0 for b, same in zip(geometry.begin, equal)]
    first = [0 if same else b for b, same in zip(geometry.begin, equal)]
    last = [0 if same else e for e, same in zip(geometry.end, equal)]
    if max(*first, *last) > 0 and not (largest or geometry.include_pad):
        raise CannotEditError("its average leaves out the padding, which would become unequal")
    if hasattr(layer, "padding"):
        _set(layer, "padding", own)
    elif any(own):
        first, last = geometry.begin, geometry.end
    _hook(layer, first, last, -math.inf if largest else 0.0)


def _adaptive_pool(layer: nn.Module, nodes: list[ir.Node]) -> None:
    pools = [node for node in nodes if node.op_type in _POOLS]
    read = {value for node in pools for value in node.inputs}
    # Windows of different sizes are one product for each axis, of which the last one is read.
    pools = [node for node in pools if node.outputs[0] not in read]
    sizes = _only([_sizes(node.outputs[0]) for node in pools], "size")
    if sizes is None or layer.output_size is None:
        return
    old = layer.output_size
    old = (old,) * len(sizes) if isinstance(old, int) else tuple(old)
    wanted = [None if size is None else new for size, new in zip(old, sizes)]
    if list(old) != wanted:
        _set(layer, "output_size", wanted)


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """Spatial sizes of a map as the graph declares them."""
    sizes = () if value.shape is None else tuple(value.shape)[2:]
    if not all(isinstance(size, int) for size in sizes):
        raise CannotEditError("the spatial sizes of its map are not known")
    return sizes


def _upsample(layer: nn.Upsample, nodes: list[ir.Node]) -> None:
    resizes = [node for node in nodes if node.op_type == "Resize"]
    sizes = _only([(_sizes(n.inputs[0]), _sizes(n.outputs[0])) for n in resizes], "size")
    if sizes is None:
        return
    before, after = sizes
    if layer.size is not None:
        _set(layer, "size", after)
        return
    scales = layer.scale_factor
    scales = scales if isinstance(scales, tuple) else (scales,) * len(after)
    _set(layer, "scale_factor", [_scale(*each) for each in zip(scales, before, after)])


def _scale(scale: float, before: int, after: int) -> float:
    """A scale that makes `before` pixels `after` ones: `scale` itself if it does."""
    if math.floor(before * scale) == after:
        return scale
    scale = after / before
    return scale if math.floor(before * scale) == after else math.nextafter(scale, math.inf)


def _padding(layer: nn.Module, nodes: list[ir.Node]) -> None:
    rank = len(layer.padding) // 2
    pads = _only([_pads_of(node, rank) for node in nodes if node.op_type == "Pad"], "padding")
    if pads is not None:
        _set(layer, "padding", _pairs(*pads))


def _patch_embedding(layer: nn.Module, nodes: list[ir.Node]) -> None:
    """Let a patch embedding, timm's say, expect the graph's image size, which it compares."""
    if not isinstance(getattr(layer, "img_size", None), tuple):
        return
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    sizes = _only([(_sizes(n.inputs[0]), _sizes(n.outputs[0])) for n in convolutions], "size")
    if sizes is None or layer.img_size == sizes[0]:
        return
    layer.img_size = sizes[0]
    if hasattr(layer, "grid_size"):
        layer.grid_size = sizes[1]
    if hasattr(layer, "num_patches"):
        layer.num_patches = math.prod(sizes[1])


def _token_attributes(layer: nn.Module, nodes: list[ir.Node]) -> None:
    """Set the sizes that layers for tokens remember, timm's and torchvision's.

    These are the shape of relative positions (RelPosBias, of whose square root the index has as
    many), the numbers of tokens (EfficientFormerV2), and the height and width of the map that
    tokens are unflattened to (LeViT's Subsample; a smaller map's are called resolution2).
    """
    tokens = _tokens(layer)
    if tokens is not None:
        queries, keys = tokens
        for name in ("resolution", "size"):
            if isinstance(getattr(layer, name, None), int):
                setattr(layer, name, math.isqrt(keys))
        if isinstance(getattr(layer, "bias_shape", None), tuple):
            layer.bias_shape = (queries, keys, *layer.bias_shape[2:])
            layer.window_area = keys
        elif _has_token(layer, keys):
            layer.window_size = (math.isqrt(keys - 1),) * 2
            layer.num_relative_distance = len(layer.relative_position_bias_table)
        for name, number in (("N", keys), ("N2", queries), ("max_seq_len", keys)):
            if hasattr(layer, name):
                setattr(layer, name, number)
    name = "resolution2" if hasattr(layer, "resolution2") else "resolution"
    if isinstance(getattr(layer, name, None), tuple):
        sizes = [_unflattened(node, tokens or ()) for node in nodes if node.op_type == "Reshape"]
        found = _only([each for each in sizes if each is not None], "size")
        if found is not None:
            setattr(layer, name, found)


def _has_token(layer: nn.Module, tokens: int) -> bool:
    """Whether attention has offsets between pixels and, before them, a class token, as in BEiT."""
    table = getattr(layer, "relative_position_bias_table", None)
    if not isinstance(table, torch.Tensor) or not hasattr(layer, "num_relative_distance"):
        return False
    side = math.isqrt(tokens - 1)
    return len(table) == (2 * side - 1) ** 2 + TOKEN_VALUES


def _offset_attributes(layer: nn.Module) -> None:
    """Set the height and width of the map for whose offsets a layer has tables (bottlenecks)."""
    for name in ("height", "width"):
        table = getattr(layer, f"{name}_rel", None)
        if isinstance(table, torch.Tensor) and isinstance(getattr(layer, name, None), int):
            setattr(layer, name, (len(table) + 1) // 2)


def _window_attributes(layer: nn.Module, nodes: list[ir.Node]) -> None:
    """Set the sizes that attention in windows remembers, Swin's say, also in the layers inside it.

    These are the window's size and number of pixels, the shift by half a window, and the size of
    the map that is cut.
    """
    name = next((name for name in _WINDOWS if hasattr(layer, name)), None)
    cuts = [_windows(node) for node in nodes if node.op_type == "Reshape"] if name else []
    cuts = [each for each in cuts if each is not None]
    if name is not None and isinstance(getattr(layer, name), int):
        # Windows are square. Tokens of windows that are put together again may look like a map.
        cuts = [(whole, numbers) for whole, numbers in cuts if numbers[1] == numbers[3]]
    found = _only(cuts, "window")
    if found is not None:
        whole, numbers = found
        # Where a grid of pixels from all over the map is a window, its sizes come first.
        window = numbers[1::2] if getattr(layer, "partition_block", True) else numbers[::2]
        if isinstance(getattr(layer, "input_resolution", None), tuple):
            layer.input_resolution = whole
    elif name is not None and isinstance(getattr(layer, name), int):
        # The whole map is one window, of as many pixels as there are relative positions.
        tokens = next(filter(None, map(_tokens, layer.modules())), None)
        if tokens is None:
            return
        window = (math.isqrt(tokens[1]),) * 2
    else:
        return
    for each in layer.modules():
        old = getattr(each, name, None)
        if not isinstance(old, int | tuple | list):
            continue
        old = (old, old) if isinstance(old, int) else tuple(old)
        # Halo attention with a stride has queries for every second pixel of a block, say.
        pixels = tuple(size * getattr(each, "block_stride", 1) for size in window)
        if old == pixels:
            continue
        _set_like(each, name, pixels)
        if hasattr(each, "window_area"):
            each.window_area = math.prod(window)
        shift = getattr(each, "shift_size", 0)
        shift = (shift, shift) if isinstance(shift, int) else tuple(shift)
        if any(shift):
            halves = [new // 2 if s else 0 for s, new in zip(shift, window)]
            _set_like(each, "shift_size", halves)


def _partition_attributes(layer: nn.Module, nodes: list[ir.Node]) -> None:
    """Set the sizes that torchvision's MaxViT remembers of the windows that it cuts a map into.

    Each of `g` by `g` windows has `p` by `p` pixels. Where the pixels of a window come from all
    over the map, it is their number that MaxViT calls the number of partitions.
    """
    cuts = [_windows(node) for node in nodes if node.op_type == "Reshape"]
    found = _only([each for each in cuts if each is not None], "window")
    if found is None or not hasattr(layer, "grid_size"):
        return
    layer.grid_size, (layer.g, layer.p, *_) = found
    layer.n_partitions = layer.p if layer.partition_type == "grid" else layer.g


def _tokens(layer: nn.Module) -> tuple[int, int] | None:
    """How many queries and keys the layer's index of relative positions is for, if it has one."""
    for name in _INDICES:
        index = getattr(layer, name, None)
        if isinstance(index, torch.Tensor):
            tokens = math.isqrt(index.numel())
            return (tokens, tokens) if index.ndim != 2 else tuple(index.shape)
    return None


def _set_like(layer: nn.Module, name: str, values: Sequence[int]) -> None:
    """Set an attribute to values per axis, as the number, list or tuple that it was."""
    old = getattr(layer, name)
    setattr(layer, name, values[0] if isinstance(old, int) else type(old)(values))


def _windows(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The sizes of a map that a Reshape cuts into windows, and the four numbers it is cut into.

    None for any other Reshape.
    """
    before, after = (
        () if value.shape is None else tuple(value.shape)
        for value in (node.inputs[0], node.outputs[0])
    )
    if len(before) != 4 or len(after) != 6:
        return None
    for at in (1, 2):  # channels last or first
        whole, numbers = before[at : at + 2], after[at : at + 4]
        if all(isinstance(size, int) for size in (*whole, *numbers)) and whole == (
            numbers[0] * numbers[1],
            numbers[2] * numbers[3],
        ):
            return whole, numbers
    return None


def _unflattened(node: ir.Node, numbers: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width of the map that a Reshape makes of tokens; None for any other Reshape.

    A map with channels first is told from heads of attention by the `numbers` of tokens.
    """
    before, after = (
        () if value.shape is None else tuple(value.shape)
        for value in (node.inputs[0], node.outputs[0])
    )
    if len(after) != 4 or not before:
        return None
    if len(before) == 3 and before[2] == after[3]:
        sizes, numbers = after[1:3], (before[1],)
    elif before[-1] in numbers:
        sizes, numbers = after[2:], (before[-1],)
    else:
        return None
    whole = all(isinstance(size, int) for size in sizes) and math.prod(sizes) in numbers
    return sizes if whole else None


def _linear(layer: nn.Linear, nodes: list[ir.Node]) -> None:
    layer.in_features = layer.weight.shape[1]


def _layer_norm(layer: nn.LayerNorm, nodes: list[ir.Node]) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


# timm's head of VGG pools maps to the size of its first kernel, which it remembers here.
_EXPECTED = "input_kernel_size"
# What attention calls the sizes of a window: Swin's, MaxViT's in timm, Twins' and NesT's.
_WINDOWS = ("window_size", "partition_size", "ws", "block_size")
# What attention calls the index that looks up relative positions: Swin's, and LeViT's.
_INDICES = ("relative_position_index", "attention_bias_idxs")
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ADAPTIVE_POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_PADDINGS = (
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
)
_POOLS = (
    *("AveragePool", "GlobalAveragePool", "ReduceMean", "MaxPool", "GlobalMaxPool", "ReduceMax"),
    "Resize",  # where adaptive pooling repeats pixels
    "MatMul",  # where its windows are of different sizes
)

_EDITORS: dict[type, Callable[[nn.Module, list[ir.Node]], None]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    **dict.fromkeys((*_MAX_POOLS, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pool),
    **dict.fromkeys((nn.LPPool1d, nn.LPPool2d, nn.LPPool3d), _pool),
    **dict.fromkeys(_ADAPTIVE_POOLS, _adaptive_pool),
    **dict.fromkeys(_PADDINGS, _padding),
    nn.Upsample: _upsample,
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
}
