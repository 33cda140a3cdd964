"""RoiAlign and MaxRoiPool: regions in input pixels read from a map of any size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphscale
from tests.passes.small_graphs import attribute, graph, run

REGIONS = "float[1,3,32,32] x, float[k,4] regions, int64[k] of"


def detector(resize: str = "") -> onnx.ModelProto:
    """A map at half the input's resolution, or another, from which 3×3 windows are read."""
    nodes = f"""
        f = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        {resize or "m = Identity (f)"}
        y = RoiAlign <output_height=3, output_width=3, sampling_ratio=2, spatial_scale=0.5,
                      mode="avg", coordinate_transformation_mode="half_pixel"> (m, regions, of)
    """
    return graph(nodes, REGIONS.replace("k", "2"), w=(4, 3, 3, 3))


def by_hand(map_: np.ndarray, regions: np.ndarray, scale: float) -> np.ndarray:
    """3×3 bins of 2×2 bilinear samples each, as the operator is defined."""
    channels, height, width = map_.shape
    result = np.zeros((len(regions), channels, 3, 3))

    def sample(y: float, x: float) -> np.ndarray:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        a, b = y - top, x - left
        upper = (1 - b) * map_[:, top, left] + b * map_[:, top, right]
        lower = (1 - b) * map_[:, bottom, left] + b * map_[:, bottom, right]
        return (1 - a) * upper + a * lower

    for number, region in enumerate(regions):
        x1, y1, x2, y2 = region * scale - 0.5
        for row in range(3):
            for column in range(3):
                for i in range(2):
                    for j in range(2):
                        y = y1 + (y2 - y1) / 3 * (row + (i + 0.5) / 2)
                        x = x1 + (x2 - x1) / 3 * (column + (j + 0.5) / 2)
                        result[number, :, row, column] += sample(y, x) / 4
    return result


def with_map(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.output.append(onnx.ValueInfoProto(name="m"))
    return result


def test_the_map_shrinks_and_the_scale_stays_with_the_stride() -> None:
    target = detector()
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert attribute(pretrain, "RoiAlign", "spatial_scale") == 0.5
    regions = np.array([[2, 2, 14, 10], [4.5, 3, 17, 18]], np.float32)
    inputs = {"regions": regions, "of": np.zeros(2, np.int64)}
    found = run(with_map(pretrain), **inputs)
    assert found["m"].shape == (1, 4, 10, 10)
    np.testing.assert_allclose(found["y"], by_hand(found["m"][0], regions, 0.5), atol=1e-5)
    grown = graphscale.grow(pretrain)
    found = run(with_map(grown), **inputs)
    assert found["m"].shape == (1, 4, 16, 16)
    np.testing.assert_allclose(found["y"], by_hand(found["m"][0], regions, 0.5), atol=1e-5)


RESIZE = """
    size = Constant <value = int64[4] {1, 4, 24, 24}> ()
    m = Resize <mode="linear"> (f, , , size)
"""


def resized_detector() -> onnx.ModelProto:
    """The windows are read from a map of 24 pixels made from one of 16, which is an output, too."""
    target = detector(RESIZE)
    target.graph.output.append(onnx.ValueInfoProto(name="f"))
    target.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    (roi,) = [node for node in target.graph.node if node.op_type == "RoiAlign"]
    for each in roi.attribute:
        each.f = 0.75 if each.name == "spatial_scale" else each.f
    return target


def test_the_scale_follows_a_map_of_another_ratio() -> None:
    pretrain = graphscale.shrink(resized_detector(), init="resize", input_size=22)
    regions = np.array([[2, 2, 14, 10], [4.5, 3, 17, 18]], np.float32)
    found = run(with_map(pretrain), regions=regions, of=np.zeros(2, np.int64))
    scale = attribute(pretrain, "RoiAlign", "spatial_scale")
    # The first map's pixels are 2 apart, and 11 of them become 16 or 17.
    assert found["f"].shape[2] == 11
    assert found["m"].shape[2] in (16, 17)
    assert scale == pytest.approx(found["m"].shape[2] / 22, rel=1e-6)
    np.testing.assert_allclose(found["y"], by_hand(found["m"][0], regions, scale), atol=1e-5)
    assert attribute(graphscale.grow(pretrain), "RoiAlign", "spatial_scale") == 0.75


def test_unequal_ratios_of_height_and_width_are_refused() -> None:
    """3 rows of 6 become 4 or 5, which is no 24 of 32; 10 columns of 20 become 15, which is."""
    with pytest.raises(graphscale.GraphScaleError, match=r"roialign.*spatial_scale.*input-size"):
        graphscale.shrink(resized_detector(), init="resize", input_size=(6, 20))


def test_max_roi_pool() -> None:
    nodes = """
        f = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)
        y = MaxRoiPool <pooled_shape=[2,2], spatial_scale=0.5> (f, regions)
    """
    target = graph(nodes, "float[1,3,32,32] x, float[1,5] regions", w=(4, 3, 3, 3))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    regions = np.array([[0, 0, 0, 18, 18]], np.float32)  # the whole map of 10×10 pixels
    model = onnx.ModelProto()
    model.CopyFrom(pretrain)
    model.graph.output.append(onnx.ValueInfoProto(name="f"))
    found = run(model, regions=regions)
    blocks = found["f"].reshape(1, 4, 2, 5, 2, 5).max((3, 5))
    np.testing.assert_allclose(found["y"], blocks, atol=1e-6)
    assert run(graphscale.grow(pretrain), regions=regions)["y"].shape == (1, 4, 2, 2)
