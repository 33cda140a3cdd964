"""Imported networks train as the torch modules from which they were exported."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import graphscale
from tests.zoo import HANDMADE, export

from .compare import build, random, run_onnxruntime


def exported(module: nn.Module, *shape: int) -> onnx.ModelProto:
    """The module as the older exporter writes it in training mode: nothing folded."""
    import io
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(shape),),
            file,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamic_axes={"x": {0: "N"}},
            input_names=["x"],
        )
    return onnx.load_from_string(file.getvalue())


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8, momentum=0.3),
        nn.PReLU(8),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, 1),
        nn.BatchNorm2d(4),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    for norm in (network[1], network[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network


def imported(network: nn.Module) -> nn.Module:
    return graphscale.load(exported(network.eval(), 2, 3, 8, 8))


def test_gradients_and_statistics_equal_torch():
    network = small_network()
    module = imported(network)
    network.train()
    module.train()
    x = torch.from_numpy(random(4, 3, 8, 8))
    for _ in range(3):
        for net in (network, module):
            net(x).square().mean().backward()
    parameters = dict(network.named_parameters())
    assert len(list(module.parameters())) == len(parameters)
    for name, parameter in module.named_parameters():
        wanted = parameters.get(name, parameters["2.weight"])  # PReLU's gets its axes when exported
        torch.testing.assert_close(
            parameter.grad.reshape(wanted.shape), wanted.grad, rtol=1e-4, atol=1e-5
        )
    buffers = dict(network.named_buffers())
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.eval()(x), network.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_tiny", "seresnet50", "mixnet", "unet_bilinear"])
def test_gradients_reach_every_weight(name):
    model = export(name, "torchscript", width=0.25, fold=False)
    module = graphscale.load(model)
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    outputs = module(torch.rand(2, 3, size, size))
    outputs.square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    floating = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    named = {*dict(module.named_parameters()), *dict(module.named_buffers())}
    assert floating <= named


def test_dropout_is_alive_in_training_only():
    ratio = {"ratio": np.float32(0.4), "training": np.array(False)}
    for inputs, opset, options in (
        (["x", "ratio", "training"], 13, {}),
        (["x"], 10, {"ratio": 0.4}),
    ):
        node = helper.make_node("Dropout", inputs, ["y"], **options)
        weights = ratio if opset == 13 else {}
        module = graphscale.load(build([node], weights, opset=opset))
        x = torch.ones(8, 4, 32, 32)
        dropped = module.train()(x)
        assert abs((dropped == 0).float().mean() - 0.4) < 0.02
        assert torch.allclose(dropped[dropped != 0], torch.tensor(1 / 0.6))
        assert torch.equal(module.eval()(x), x)


@pytest.mark.parametrize("name", ["shared_weights", "shared_through_identity"])
def test_shared_weights_are_one_parameter(name):
    module = graphscale.load(HANDMADE[name]())
    uses = [n for n in module.graph.nodes if n.target is torch.conv2d]
    kernels = [str(n.args[1].target) for n in uses]
    assert len(set(kernels)) < len(kernels)
    assert len(dict(module.named_parameters())) == len(set(map(id, module.parameters())))


def test_merged_weights_of_an_untrained_network_train_apart():
    layers = [(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)) for _ in range(2)]
    network = nn.Sequential(*[layer for group in layers for layer in group])
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)
    model = exported(network.eval(), 2, 4, 8, 8)
    ones, zeros = "0.weight", "0.bias"
    for node in model.graph.node:  # as torch.onnx.export(dynamo=True) merges equal tensors
        if node.op_type == "BatchNormalization":
            node.input[1:] = [ones, zeros, zeros, ones]
        elif node.op_type == "Conv":
            node.input[2] = zeros
    kept = {value for node in model.graph.node for value in node.input}
    for tensor in list(model.graph.initializer):
        if tensor.name not in kept:
            model.graph.initializer.remove(tensor)
    module = graphscale.load(model)
    assert len(list(module.parameters())) == 8
    assert len(list(module.buffers())) == 4
    x = torch.from_numpy(random(4, 4, 8, 8))
    for net in (network.train(), module.train()):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(module.eval()(x), network.eval()(x), rtol=1e-4, atol=1e-5)
    written = graphscale.save(module)
    again = graphscale.load(written)
    torch.testing.assert_close(again.eval()(x), module(x))


def test_training_mode_nodes_use_batch_statistics():
    weights = {"s": random(4), "b": random(4), "m": random(4), "v": np.abs(random(4)) + 0.5}
    node = helper.make_node(
        "BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "m2", "v2"], training_mode=1
    )
    model = build([node], weights, outputs=("y", "m2", "v2"), opset=15)
    x = random(3, 4, 8, 8)
    module = graphscale.load(model).eval()
    for ours, theirs in zip(module(torch.from_numpy(x)), run_onnxruntime(model, x)):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=1e-4)
    before = dict(module.named_buffers())["m"].clone()
    module.train()(torch.from_numpy(x))
    assert not torch.equal(dict(module.named_buffers())["m"], before)


def outputs_of(module, x):
    with torch.no_grad():
        return module(x)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph(backend):
    module = imported(small_network())
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend=backend)
    x = torch.from_numpy(random(4, 3, 8, 8))
    for net in (module, compiled):
        net.train()
        net(x).sum().backward()
        net.eval()
    for ours, theirs in zip(compiled.parameters(), module.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs_of(compiled, x), outputs_of(module, x))
    torch.testing.assert_close(outputs_of(compiled, x[:3]), outputs_of(module, x[:3]))


def test_odd_names_compile():
    weights = {"a": random(4, 4, 1, 1), "a.b": random(4, 4, 1, 1), "class": random(4, 4, 1, 1)}
    values = ["x", "v", "w", "y"]
    nodes = [
        helper.make_node("Conv", [values[i], name], [values[i + 1]])
        for i, name in enumerate(weights)
    ]
    module = graphscale.load(build(nodes, weights))
    x = torch.from_numpy(random(2, 4, 8, 8))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    torch.testing.assert_close(outputs_of(compiled, x), outputs_of(module, x))


@pytest.mark.parametrize("name", ["alexnet_lrn", "convnext_tiny"])
def test_autocast(name):
    model = export(name, "torchscript", width=0.25, fold=False)
    module = graphscale.load(model).eval()
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    x = torch.from_numpy(np.abs(random(2, 3, size, size)))
    exact = outputs_of(module, x)
    with torch.autocast("cpu", torch.bfloat16):
        close = module.train()(x)
        close.float().square().mean().backward()
        close = outputs_of(module.eval(), x)
    assert close.dtype == torch.bfloat16
    assert (close.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("name", ["fpn_size", "unet_transpose"])
def test_channels_last(name):
    model = export(name, "torchscript", width=0.25, fold=False)
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    x = torch.from_numpy(np.abs(random(2, 3, size, size)))
    exact = outputs_of(graphscale.load(model).eval(), x)
    module = graphscale.load(model).eval().to(memory_format=torch.channels_last)
    same = outputs_of(module, x.to(memory_format=torch.channels_last))
    for ours, theirs in zip(*(y if isinstance(y, tuple) else (y,) for y in (same, exact))):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_copies_are_independent():
    module = imported(small_network()).eval()
    twin = copy.deepcopy(module)
    x = torch.from_numpy(random(2, 3, 8, 8))
    before = outputs_of(module, x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(outputs_of(module, x), before)
    assert not torch.allclose(outputs_of(twin, x), before)


def test_functional_call():
    module = imported(small_network()).eval()
    doubled = {name: 2 * parameter for name, parameter in module.named_parameters()}
    x = torch.from_numpy(random(2, 3, 8, 8))
    called = torch.func.functional_call(module, doubled, (x,))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(called, module(x))
