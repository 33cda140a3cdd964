"""`graphscale.save`: trained weights in the same graph."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import graphscale
from tests.zoo import HANDMADE

from .compare import build, random, run_onnxruntime, run_torch


def picture(model: onnx.ModelProto) -> np.ndarray:
    shape = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.abs(random(*shape))


def train(module: torch.nn.Module, x: np.ndarray) -> None:
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    module.train()
    outputs = module(torch.from_numpy(x))
    (outputs[0] if isinstance(outputs, tuple) else outputs).square().mean().backward()
    optimizer.step()
    module.eval()


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.ClearField("int64_data")
    for node in bare.graph.node:
        if node.op_type == "Constant":
            node.ClearField("attribute")
    return bare


@pytest.mark.parametrize(
    "name",
    [
        "opset7",
        "opset26",
        "constant_nodes",
        "shared_through_identity",
        "tensorflow_flatten",
        "float16_stored",
        "bfloat16_stored",
        "dynamic_flatten",
    ],
)
def test_round_trip(name, tmp_path):
    model = HANDMADE[name]()
    helper.set_model_props(model, {"graphscale.plan": "{}", "other": "kept"})
    module = graphscale.load(model)
    x = picture(model)
    train(module, x)
    path = tmp_path / "ckpt.onnx"
    graphscale.save(module, path)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    for ours, theirs in zip(run_torch(module, x), run_onnxruntime(written, x)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    assert {p.key: p.value for p in written.metadata_props} == {
        "graphscale.plan": "{}",
        "other": "kept",
    }
    before, after = without_weights(model), without_weights(written)
    assert list(after.graph.node) == list(before.graph.node)
    kinds = [(t.name, t.data_type, tuple(t.dims)) for t in before.graph.initializer]
    assert [(t.name, t.data_type, tuple(t.dims)) for t in after.graph.initializer] == kinds
    changed = run_onnxruntime(model, x)[0] != run_onnxruntime(written, x)[0]
    assert changed.any()


def test_running_statistics_are_saved():
    model = HANDMADE["opset17"]()
    module = graphscale.load(model)
    train(module, picture(model))
    buffers = {name: b.numpy() for name, b in module.named_buffers()}
    written = graphscale.save(module)
    for name, value in written.graph.initializers.items():
        if name in buffers:
            np.testing.assert_array_equal(value.const_value.numpy(), buffers[name])
    assert buffers


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_tensors_keep_the_types_of_the_graph(dtype):
    weight = random(4, 4, 3, 3).astype(dtype)
    nodes = [
        helper.make_node("Cast", ["w"], ["k"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "k"], ["y"]),
    ]
    model = build(nodes, {"w": weight})
    module = graphscale.load(model, dtype=torch.float32)
    with torch.no_grad():
        module.w.mul_(2)
    saved = graphscale.save(module).graph.initializers["w"].const_value.numpy()
    assert saved.dtype == weight.dtype
    np.testing.assert_array_equal(saved, weight * np.asarray(2, dtype))


def test_weights_of_constant_of_shape_become_constants(tmp_path):
    fill = numpy_helper.from_array(np.float32([0.5]))
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["w"], name="fill", value=fill),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    model = build(nodes, {"sizes": np.array([2, 4, 3, 3])})
    module = graphscale.load(model)
    x = random(2, 4, 8, 8)
    train(module, x)
    graphscale.save(module, tmp_path / "ckpt.onnx")
    written = onnx.load(tmp_path / "ckpt.onnx")
    first = written.graph.node[0]
    assert (first.op_type, first.name, first.output[0]) == ("Constant", "fill", "w")
    np.testing.assert_allclose(
        run_torch(module, x)[0], run_onnxruntime(written, x)[0], rtol=0, atol=1e-4
    )


class Wrapped(torch.nn.Module):
    """Holds its module as DistributedDataParallel does."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


def test_saves_through_wrappers():
    module = graphscale.load(HANDMADE["opset17"]())
    with torch.no_grad():
        next(module.parameters()).zero_()
    name = next(iter(dict(module.named_parameters())))
    for wrapped in (
        torch.compile(module, backend="eager"),
        Wrapped(module),
        Wrapped(torch.compile(module, backend="eager")),
        torch.nn.DataParallel(module),
    ):
        saved = graphscale.save(wrapped).graph.initializers[name].const_value.numpy()
        assert not saved.any()


def test_other_modules_are_an_error():
    with pytest.raises(graphscale.GraphScaleError, match=r"Linear was not loaded"):
        graphscale.save(torch.nn.Linear(2, 2))


def test_a_missing_folder_is_an_error(tmp_path):
    module = graphscale.load(HANDMADE["opset17"]())
    with pytest.raises(graphscale.GraphScaleError, match="nowhere"):
        graphscale.save(module, tmp_path / "nowhere" / "ckpt.onnx")


def test_the_source_is_left_alone():
    model = HANDMADE["opset17"]()
    module = graphscale.load(model)
    x = picture(model)
    before = run_onnxruntime(model, x)[0]
    train(module, x)
    graphscale.save(module)
    graphscale.save(module)
    np.testing.assert_array_equal(run_onnxruntime(model, x)[0], before)
