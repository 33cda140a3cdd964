"""Which dimensions of a graph input are heights and widths, before sizes are followed.

In go an input and the nodes that read it; out come positions. A convolution or a pooling has
channels second and heights and widths behind them. What stands between it and the input leaves the
dimensions in place, moves them (Transpose), or adds some of one pixel (Unsqueeze, Reshape), such as
the channel of a spectrogram. Sizes need not be known: this also finds which of them must be given.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.weight_source import tensor_of, weight_source

_IN_PLACE = (
    *("Abs", "Add", "Cast", "Clip", "Concat", "Div", "Exp", "Expand", "Identity", "Log", "Max"),
    *("Min", "Mul", "Neg", "Pad", "Pow", "Slice", "Sqrt", "Sub", "Tile"),
)
# What has channels second.
_READERS = (
    *("AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "FFTConv"),
    *("FusedConv", "InstanceNormalization", "LpPool", "MaxPool", "QLinearConv"),
)

_Places = tuple[int, ...]
_Known = dict[ir.Value, _Places | None]
_FARTHEST = 100  # nodes between an input and a reader that still tells


def spatial_positions(value: ir.Value, rank: int) -> _Places:
    """Positions of height, width … in a graph input of `rank` dimensions, in ascending order.

    Where its readers do not tell, or tell different things, channels come first.
    """
    found = _told(value, rank, {}, _FARTHEST)
    return tuple(range(2, rank)) if found is None else found


def _told(value: ir.Value, rank: int, known: _Known, left: int) -> _Places | None:
    """What the readers of a value tell with one voice; None where none tells, or they differ.

    `left` says how many nodes the search may still pass.
    """
    if not left:
        return None
    if value not in known:
        nodes = {usage.node for usage in value.uses()}
        found = {_told_by(node, value, rank, known, left - 1) for node in nodes} - {None}
        known[value] = found.pop() if len(found) == 1 else None
    return known[value]


def _told_by(node: ir.Node, value: ir.Value, rank: int, known: _Known, left: int) -> _Places | None:
    """What one reader of a value of `rank` dimensions tells."""
    if node.op_type in _READERS:
        return tuple(range(2, rank))
    if node.op_type in _IN_PLACE:
        return _told(node.outputs[0], rank, known, left)
    sources = _sources(node, value, rank)
    if sources is None:
        return None
    found = _told(node.outputs[0], len(sources), known, left)
    if found is None and node.op_type == "Transpose" and sources[:2] == [0, rank - 1]:
        found = tuple(range(2, rank))  # it puts the last dimension, the channels, second
    if found is None:
        return None
    return tuple(sorted(place for at in found if (place := sources[at]) is not None))


def _sources(node: ir.Node, value: ir.Value, rank: int) -> list[int | None] | None:
    """For each dimension behind a node, its place in `value`; None for one of one pixel.

    None altogether where the node moves dimensions in a way that is not known.
    """
    if node.op_type == "Transpose":
        order = list(node.attributes.get_ints("perm", []))
        return order if len(order) == rank else None
    numbers = weight_source(node.inputs[1]) if len(node.inputs) > 1 else None
    given = tensor_of(numbers).numpy().ravel().tolist() if numbers is not None else None
    if node.op_type == "Unsqueeze":
        axes = node.attributes.get_ints("axes", given or [])
        added = {axis % (rank + len(axes)) for axis in axes}
        places = iter(range(rank))
        return [None if at in added else next(places) for at in range(rank + len(added))]
    if node.op_type == "Reshape" and given and value.shape is not None:
        # Behind the batch, dimensions of more than one pixel keep their order.
        before = [place for place in range(1, rank) if value.shape[place] != 1]
        behind = [at for at in range(1, len(given)) if given[at] != 1]
        sizes = [(value.shape[place], given[at]) for place, at in zip(before, behind)]
        same = all(size in (wanted, None) or wanted < 1 for size, wanted in sizes)
        if len(before) == len(behind) and same:
            place_of = dict(zip([0, *behind], [0, *before]))
            return [place_of.get(at) for at in range(len(given))]
    return None
