"""A Relu or Clip behind a convolution is fused into FFTConv, and split off again."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphscale
from graphscale.acceleration.whole_model import open_model
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.fuse_activations import bounds_of
from graphscale.passes.accelerate.rewrite_convolutions import RewriteConvolutions, algorithm_of

X = np.random.default_rng(0).standard_normal((2, 3, 9, 10), np.float32)


def network(activation: str, opset: int = 17) -> ir.Model:
    """x -> Conv -> activation -> y, beside constants that it may take."""
    text = f"""
    <ir_version: 8, opset_import: ["": {opset}]>
    g (float[2, 3, 9, 10] x) => (float[2, 4, 9, 10] y)
    <float[4, 3, 3, 3] weight, float low = {{-0.25}}, float high = {{0.5}}>
    {{
        sums = Conv <pads = [1, 1, 1, 1]> (x, weight)
        {activation}
    }}
    """
    proto = onnx.parser.parse_model(text)
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3), np.float32)
    initializers = proto.graph.initializer
    kept = [each for each in initializers if each.name in activation]
    del initializers[:]
    initializers.extend([onnx.numpy_helper.from_array(weight, "weight"), *kept])
    return ir.from_proto(proto)


def accelerated(model: ir.Model, algorithm: str | None = "auto") -> ir.Model:
    from graphscale.layers.export import add_function_bodies

    model = model.clone()
    RewriteConvolutions(dict.fromkeys(find_convolutions(model), algorithm))(model)
    add_function_bodies(model)
    onnx.checker.check_model(ir.to_proto(model))
    return model


def run(model: ir.Model) -> list[np.ndarray]:
    return open_model(model).run(None, {"x": X})


CLIPPED = {
    "relu": ("y = Relu(sums)", 17),
    "clip": ("y = Clip(sums, low, high)", 17),
    "at least": ("y = Clip(sums, low)", 15),
    "at most": ("y = Clip(sums, , high)", 17),
    "constant node": ("c = Constant <value = float {0.1}> ()\n y = Clip(sums, c)", 17),
    "more follows": ("r = Relu(sums)\n y = Neg(r)", 17),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_taken_over_and_given_back(name):
    original = network(*CLIPPED[name])
    fused = accelerated(original)
    (convolution,) = find_convolutions(fused)
    assert algorithm_of(convolution) == "auto"
    kinds = [node.op_type for node in fused.graph]
    assert kinds == ["FFTConv", "Neg"] if name == "more follows" else ["FFTConv"]
    assert [value.name for value in fused.graph.outputs] == ["y"]
    assert set(fused.graph.initializers) == {"weight"}
    for wanted, found in zip(run(original), run(fused), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    split = accelerated(fused, None)
    assert {"Relu", "Clip"} & {node.op_type for node in split.graph}
    np.testing.assert_array_equal(run(split)[0], run(original)[0])
    again = accelerated(split)
    assert bounds_of(find_convolutions(again)[0]) == bounds_of(convolution)


@pytest.mark.parametrize(
    "activation",
    [
        "y = Sigmoid(sums)",
        "r = Relu(sums)\n y = Add(r, sums)",
        "low_of_x = ReduceMin <keepdims = 0> (x)\n y = Clip(sums, low_of_x)",
        "y = Clip(sums, high, low)",
        ("y = Relu(sums)", 14),
        ("y = Clip <min = -0.5, max = 0.25> (sums)", 10),
    ],
)
def test_left_alone(activation):
    original = network(activation) if isinstance(activation, str) else network(*activation)
    changed = accelerated(original)
    assert bounds_of(find_convolutions(changed)[0]) == bounds_of(
        find_convolutions(accelerated(changed))[0]
    )
    assert len(changed.graph) == len(original.graph)
    np.testing.assert_allclose(run(changed)[0], run(original)[0], rtol=1e-5, atol=1e-5)


def test_outputs_of_the_model_stay():
    model = network("y = Relu(sums)")
    (sums,) = find_convolutions(model)[0].outputs
    sums.type, sums.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 4, 9, 10])
    model.graph.outputs.append(find_convolutions(model)[0].outputs[0])
    assert [node.op_type for node in accelerated(model).graph] == ["FFTConv", "Relu"]


def test_loads_into_torch_with_its_gradient():
    import torch

    original = network("y = Clip(sums, low, high)")
    modules = [graphscale.load(ir.to_proto(model)) for model in (original, accelerated(original))]
    gradients = []
    for module in modules:
        x = torch.from_numpy(X).requires_grad_()
        y = module(x)
        y = y[0] if isinstance(y, tuple | list) else y
        y.square().sum().backward()
        gradients.append([x.grad, *(each.grad for each in module.parameters())])
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
