"""Resize and Upsample, whose scales or sizes are written anew so that they give the wanted size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphscale.core.node_names import node_name
from graphscale.core.plan import Grid
from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.analyzer import Analyzer, unfollowed
from graphscale.passes.spatial.dimensions import Dim, fixed, moves, target_size
from graphscale.passes.spatial.mapping import Change, Option, Parameters
from graphscale.passes.spatial.registry import Rule, register
from graphscale.passes.spatial.rewriter import Rewriter
from graphscale.passes.spatial.rules.expand import OnePixel

_PARTS = ("Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_RATIO_COST = 5.0  # of another ratio than the target's, which moves a map's ends off their places


@dataclass(frozen=True)
class Resampling(Parameters):
    """From `before` to `size` pixels; `mode` is ONNX's coordinate_transformation_mode."""

    before: int
    size: int
    mode: str

    def grid(self, grid: Grid, size: int) -> Grid:
        if self.before == 1:
            return OnePixel().grid(grid, size)
        ratio = self.before / self.size
        if self.mode == "align_corners":
            ratio = (self.before - 1) / max(self.size - 1, 1)
        # In the half_pixel modes the outer edges of the first pixels coincide; in the other modes
        # ('asymmetric', 'align_corners') their centres do.
        on_edge = self.mode.endswith("half_pixel") or self.mode == "half_pixel_symmetric"
        shift = ratio / 2 - 0.5 if on_edge else 0.0
        return Grid(grid.origin + grid.pitch * shift, grid.pitch * ratio, size)

    def options(self, target: Change, size: int, wanted: frozenset[int]) -> Iterator[Option]:
        for out in wanted:
            same_ratio = out * target.source == size * target.result
            cost = 0.0 if same_ratio else _RATIO_COST
            yield Option(out, replace(self, before=size, size=out), cost)


@register("Resize", "Upsample")
class _Resize(Rule):
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        old = node.op_type == "Upsample" or analyzer.model.opset_imports.get("") == 10
        mode = node.attributes.get_string(
            "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
        )
        if mode == "tf_crop_and_resize":
            raise unfollowed(node, "crops while it resizes (tf_crop_and_resize)")
        (output,) = node.outputs
        dims, shape = analyzer.of(node.inputs[0]), analyzer.shape(output)
        if _from_weight(node.inputs[0]) and len(shape) == 4:
            # A table of positions that is resized to a map follows the map that it meets.
            spread = (analyzer.spread(node, d, d - 2, shape[d], OnePixel()) for d in (2, 3))
            analyzer.dims[output] = (*dims[:2], *spread)
            return
        changed = [d for d in range(1, len(shape)) if target_size(dims[d]) != shape[d]]
        first_axis = 1 if 1 in changed else 2  # channels last or first
        result: list[Dim] = list(dims)
        for dimension in changed:
            size, before = shape[dimension], target_size(dims[dimension])
            if before == 1 and not moves(dims[dimension]):
                axis = dimension - first_axis
                result[dimension] = analyzer.spread(node, dimension, axis, size, OnePixel())
            else:
                parameters = Resampling(before, size, mode)
                result[dimension] = analyzer.resize(
                    node, dimension, dims[dimension], size, parameters
                )
        if target_size(dims[0]) != shape[0]:
            result[0] = fixed(shape[0])
        analyzer.dims[output] = tuple(result)

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:
        """Write scales that give the sizes exactly, or the sizes themselves."""
        before, after = rewriter.shape(node.inputs[0]), rewriter.shape(node.outputs[0])
        axes = node.attributes.get_ints("axes", list(range(len(before))))
        sizes = [(before[axis], after[axis]) for axis in axes]
        if "scales" in node.attributes:
            scales = np.asarray(node.attributes["scales"].value, np.float32)
            node.attributes["scales"] = ir.AttrFloat32s("scales", _scales(scales, sizes).tolist())
            return
        at = 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2
        scales = node.inputs[at] if at < len(node.inputs) else None
        current = rewriter.analysis.inferred.constants.get(scales)
        if current is not None and current.size:
            rewriter.constants.demand(node, at, _scales(current, sizes), freeze=True)
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            wanted = np.asarray([size for _, size in sizes])
            rewriter.constants.demand(node, 3, wanted)
            found = rewriter.constants.computed(node.inputs[3], rewriter.shape)
            if not np.array_equal(found, wanted):
                # The sizes are computed from the map's own shape by a factor, which differs between
                # the networks. They are replaced by scales, which hold no batch size and can
                # therefore be constants.
                scales = _scales(np.zeros(len(sizes), np.float32), sizes)
                name = f"{node_name(node)}.scales"
                node.replace_input_with(2, rewriter.add_initializer(name, scales))
                node.replace_input_with(3, None)


def _from_weight(value: ir.Value) -> bool:
    """Whether a value is a weight, or a part of one, in some arrangement."""
    while weight_source(value) is None:
        node = value.producer()
        if node is None or node.op_type not in _PARTS:
            return False
        value = node.inputs[0]
    return True


def _scales(scales: np.ndarray, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Scales that turn each size before into the size after; old ones that do so are kept."""
    result = scales.copy()
    for index, (before, after) in enumerate(sizes):
        if int(np.floor(before * float(scales[index]))) != after:
            # Rounding may have made the scale too small: take the next larger number.
            scale = np.asarray(after / before, scales.dtype)
            while int(np.floor(before * float(scale))) < after:
                scale = np.nextafter(scale, np.asarray(np.inf, scales.dtype))
            result[index] = scale
    return result
