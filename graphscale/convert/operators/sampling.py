"""Translations of operators that read between pixels, and of AffineGrid, which says where."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graphscale.convert.operators.padding import window_pads
from graphscale.convert.operators.registry import translates

# From opset 20 on, ONNX has names of its own for torch's interpolations.
_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@translates("GridSample")
def _grid_sample(node, x, grid):
    mode = node.attribute("mode", "bilinear" if node.opset < 20 else "linear")
    return F.grid_sample(
        x,
        grid.to(x.dtype),
        _MODES.get(mode, mode),
        node.attribute("padding_mode", "zeros"),
        bool(node.attribute("align_corners", 0)),
    )


@translates("AffineGrid", numbers=(1,))
def _affine_grid(node, matrices, size):
    aligned = bool(node.attribute("align_corners", 0))
    return F.affine_grid(matrices, [int(each) for each in size], aligned)


@translates("RoiAlign")
def _roi_align(node, x, boxes, batch):
    """Averages over bins of boxes (R, 4): x (N, C, H, W), batch (R) give (R, C, height, width).

    The samples of a bin form a grid, and interpolation is linear along each axis. So the averages
    are a matrix for rows times the map times a matrix for columns.
    """
    if node.attribute("mode", "avg") != "avg":
        node.fail("only mode='avg' is supported; use it")
    transform = node.attribute(
        "coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel"
    )
    half_pixel = transform == "half_pixel"
    scale, samples = node.attribute("spatial_scale", 1.0), node.attribute("sampling_ratio", 0)
    boxes = boxes * scale - (0.5 if half_pixel else 0.0)
    rows, columns = (
        _bin_averages(boxes[:, first], boxes[:, first + 2], size, bins, samples, not half_pixel).to(
            x.dtype
        )
        for first, size, bins in (
            (1, x.shape[2], node.attribute("output_height", 1)),
            (0, x.shape[3], node.attribute("output_width", 1)),
        )
    )
    maps = x.index_select(0, batch.to(torch.int64))
    return torch.einsum("rph,rchw,rqw->rcpq", rows, maps, columns)


def _bin_averages(start, end, size, bins, samples, at_least_one):
    """Weights (R, bins, size) of the pixels of one axis in the average of each bin."""
    length = end - start
    if at_least_one:
        length = length.clamp(min=1.0)
    bin_size = length / bins
    # Without a sampling ratio a bin has ceil(bin size) samples, which are at least half a pixel
    # apart. So 2 * (size + 2) samples, from the first that can lie on the map, cover the map.
    count = torch.ceil(bin_size) if samples <= 0 else torch.full_like(bin_size, samples)
    count = count.clamp(min=1.0)[:, None, None]
    reach = 2 * (size + 2) if samples <= 0 else samples
    begin = (
        start[:, None, None]
        + torch.arange(bins, device=start.device)[:, None] * (bin_size[:, None, None])
    )
    step = bin_size[:, None, None] / count
    first = torch.zeros_like(begin)
    if samples <= 0:
        first = torch.floor((-1.0 - begin) / step.clamp(min=1e-6) - 0.5).clamp(min=0.0)
    index = first + torch.arange(reach, device=start.device)
    place = begin + (index + 0.5) * step
    inside = (index < count) & (place >= -1.0) & (place <= size)
    place = place.clamp(0.0, size - 1.0)
    # Linear interpolation: each pixel weighs by its distance to the sample.
    pixels = torch.arange(size, device=start.device, dtype=place.dtype)
    weights = (1.0 - (place[..., None] - pixels).abs()).clamp(min=0.0)
    return (weights * inside[..., None].to(place.dtype)).sum(2) / count


@translates("DeformConv", weights=(1, 3))
def _deform_conv(node, x, w, offset, b=None, mask=None):
    """x (N, C, H, W), w (F, C / groups, h, w), offset (N, 2·parts·h·w, H', W') give (N, F, H', W').

    Each tap of the kernel reads the map at a place shifted by its offset. F.grid_sample reads all
    of them; a matrix product with the kernels follows.
    """
    if w.ndim != 4:
        node.fail("only two-dimensional maps are supported")
    kernel = node.attribute("kernel_shape", list(w.shape[2:]))
    strides = node.attribute("strides", [1, 1])
    dilations = node.attribute("dilations", [1, 1])
    begin, _ = window_pads(node, x.shape[2:], kernel, strides, dilations)
    groups, parts = node.attribute("group", 1), node.attribute("offset_group", 1)
    channels, height, width = x.shape[1:]
    taps = kernel[0] * kernel[1]
    out_height, out_width = offset.shape[2:]
    # Where each tap of each output pixel would read without offsets: (taps, height or width).
    places = []
    for axis, count in ((0, out_height), (1, out_width)):
        tap = torch.arange(kernel[axis]) * dilations[axis]
        tap = tap[:, None].expand(kernel) if axis == 0 else tap.expand(kernel)
        place = torch.arange(count) * strides[axis] - begin[axis]
        view = (1, count, 1) if axis == 0 else (1, 1, count)
        places.append((tap.reshape(-1, 1, 1) + place.reshape(view)).to(torch.float32))
    shifts = offset.reshape(-1, taps, 2, out_height, out_width)
    y = shifts[:, :, 0] + places[0].to(w.dtype)
    x_places = shifts[:, :, 1] + places[1].to(w.dtype)
    # grid_sample counts from -1 to 1 between the outer edges of the map.
    grid = torch.stack([(2 * x_places + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    maps = x.reshape(-1, channels // parts, height, width)
    columns = F.grid_sample(
        maps, grid.flatten(2, 3).flatten(1, 2).unsqueeze(1), align_corners=False
    )
    columns = columns.reshape(-1, channels // parts, taps, out_height * out_width)
    if mask is not None:
        columns = columns * mask.reshape(-1, 1, taps, out_height * out_width)
    columns = columns.reshape(-1, groups, channels // groups * taps, out_height * out_width)
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    result = torch.matmul(kernels, columns).reshape(-1, w.shape[0], out_height, out_width)
    return result if b is None else result + b.reshape(-1, 1, 1)
