"""GridSample and AffineGrid: the output follows the grid; the map read may have any size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

import graphscale
from tests.passes.small_graphs import (
    analyzed,
    constant,
    graph,
    plan_in,
    pretrain_shape,
    run,
    solved,
    value,
)


def identity_grid(height: int, width: int) -> np.ndarray:
    """Each output pixel reads the map at its own place."""
    theta = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    return functional.affine_grid(theta, [1, 1, height, width], align_corners=False).numpy()


def constant_grid_model(height: int, width: int) -> onnx.ModelProto:
    """A map of 32×32 pixels, read on a constant grid."""
    nodes = """
        f = Conv <pads=[1,1,1,1]> (x, w)
        s = GridSample (f, grid)
        y = Conv <pads=[1,1,1,1]> (s, v)
    """
    grid = identity_grid(height, width) * np.float32(0.75)
    return graph(nodes, w=(4, 3, 3, 3), v=(2, 4, 3, 3), grid=grid)


def sampled_by_torch(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    w, v, grid = (torch.from_numpy(constant(model, name).copy()) for name in ("w", "v", "grid"))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    pads = {node.output[0]: {a.name: a.ints for a in node.attribute} for node in convolutions}

    def convolve(x: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
        top, left, bottom, right = pads[name]["pads"]
        return functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight)

    f = convolve(torch.from_numpy(x), w, "f")
    return convolve(functional.grid_sample(f, grid, align_corners=False), v, "y").numpy()


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (48, 12)])
def test_a_constant_grid_is_a_table(size: tuple[int, int]) -> None:
    target = constant_grid_model(*size)
    pretrain = graphscale.shrink(target, init="resize")
    (table,) = [weight for weight in plan_in(pretrain).weights if weight.kind == "centres"]
    small = constant(pretrain, "grid")
    assert table.name == "grid"
    side = pretrain.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for pixels, full in zip(small.shape[1:3], size):
        assert abs(pixels - full * side / 32) <= 1
    # The identity at 3/4 stays what it is, but for the half pixel at the ends where values repeat.
    inner = np.s_[:, 2:-2, 2:-2]
    expected = identity_grid(*small.shape[1:3]) * 0.75
    np.testing.assert_allclose(small[inner], expected[inner], atol=0.02)
    x = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
    expected = sampled_by_torch(pretrain, x)
    np.testing.assert_allclose(run(pretrain, x=x)["y"], expected, atol=1e-4)
    grown = graphscale.grow(pretrain)
    assert run(grown)["y"].shape == run(target)["y"].shape
    again = graphscale.shrink(grown, init="resize")
    np.testing.assert_allclose(constant(again, "grid"), small, atol=1e-5)


def test_equal_sizes_of_map_and_grid_are_not_tied() -> None:
    """The grid is the output of a branch of its own, which happens to be as large as the map."""
    nodes = """
        f = Conv <pads=[1,1,1,1]> (x, w)
        d = Conv <pads=[1,1,1,1]> (other, u)
        grid = Transpose <perm=[0,2,3,1]> (d)
        y = GridSample (f, grid)
    """
    inputs = "float[1,3,32,32] x, float[1,3,32,32] other"
    analysis = analyzed(graph(nodes, inputs, w=(4, 3, 3, 3), u=(2, 3, 3, 3)))
    (image,), (places,), (sampled,) = (
        analysis.of(value(analysis, name))[2] for name in ("f", "d", "y")
    )
    assert sampled.spatial_size is places.spatial_size
    assert sampled.spatial_size is not image.spatial_size


def test_a_grid_from_a_convolution_gives_its_size() -> None:
    """A flow field at half the map's size."""
    nodes = """
        f = Conv <pads=[1,1,1,1]> (x, w)
        d = Conv <pads=[1,1,1,1], strides=[2,2]> (f, u)
        t = Tanh (d)
        grid = Transpose <perm=[0,2,3,1]> (t)
        s = GridSample (f, grid)
        y = Conv <pads=[1,1,1,1]> (s, v)
    """
    target = graph(nodes, w=(4, 3, 3, 3), u=(2, 4, 3, 3), v=(2, 4, 3, 3))
    analysis = analyzed(target)
    geometry = solved(analysis, 20)
    field, sampled = (pretrain_shape(analysis, geometry, name) for name in ("d", "s"))
    assert sampled[2:] == field[2:]
    assert pretrain_shape(analysis, geometry, "y") == [1, 2, 10, 10]
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    assert run(pretrain)["y"].shape == (1, 2, 10, 10)
    grown = graphscale.grow(pretrain)
    assert run(grown)["y"].shape == (1, 2, 16, 16)
    same = graphscale.shrink(target, init="resize", keep=["*"], input_size=32)
    np.testing.assert_allclose(run(same)["y"], run(target)["y"], atol=1e-5)


def test_an_affine_grid_gets_the_pre_train_size() -> None:
    nodes = """
        f = Conv <pads=[1,1,1,1]> (x, w)
        size = Constant <value = int64[4] {1, 4, 16, 16}> ()
        grid = AffineGrid (theta, size)
        s = GridSample (f, grid)
        f2 = Conv <pads=[1,1,1,1], strides=[2,2]> (f, u)
        t = Add (s, f2)
        y = Conv <pads=[1,1,1,1]> (t, v)
    """
    inputs = "float[1,3,32,32] x, float[1,2,3] theta"
    target = graph(nodes, inputs, w=(4, 3, 3, 3), v=(2, 4, 3, 3), u=(4, 4, 3, 3))
    pretrain = graphscale.shrink(target, init="resize", input_size=20)
    theta = np.array([[[0.8, 0.1, 0.0], [-0.1, 0.8, 0.2]]], np.float32)
    x = np.random.default_rng(0).standard_normal((1, 3, 20, 20)).astype(np.float32)
    shape = run(with_output(pretrain, "grid"), x=x, theta=theta)["grid"].shape
    assert shape == (1, 10, 10, 2)
    expected = functional.affine_grid(torch.from_numpy(theta), [1, 4, 10, 10], align_corners=False)
    found = run(with_output(pretrain, "grid"), x=x, theta=theta)["grid"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    grown = graphscale.grow(pretrain)
    assert run(grown)["y"].shape == (1, 2, 16, 16)


def test_volumes() -> None:
    nodes = """
        f = Conv <pads=[1,1,1,1,1,1]> (x, w)
        d = Conv <pads=[1,1,1,1,1,1]> (f, u)
        grid = Transpose <perm=[0,2,3,4,1]> (d)
        s = GridSample (f, grid)
        y = Conv <pads=[1,1,1,1,1,1]> (s, v)
    """
    target = graph(
        nodes, "float[1,2,12,12,12] x", w=(3, 2, 3, 3, 3), u=(3, 3, 3, 3, 3), v=(2, 3, 3, 3, 3)
    )
    pretrain = graphscale.shrink(target, init="resize", input_size=8)
    assert run(pretrain)["y"].shape == (1, 2, 8, 8, 8)
    assert run(graphscale.grow(pretrain))["y"].shape == (1, 2, 12, 12, 12)


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with an inner tensor among its outputs."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.output.append(onnx.ValueInfoProto(name=name))
    return result
