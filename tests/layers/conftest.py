"""Fixtures that compare torch, the library in onnxruntime and the ONNX function bodies."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import graphscale
from graphscale.layers.export import add_function_bodies
from graphscale.layers.operator import DOMAIN, OPERATORS, VERSION

TYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.int64: ir.DataType.INT64,
    torch.uint32: ir.DataType.UINT32,
}


def run(model_path, tensors, library):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(graphscale.get_library_path())
    model = model_path if isinstance(model_path, bytes) else str(model_path)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    given = [tensor.detach().numpy() for tensor in tensors if tensor is not None]
    return session.run(None, dict(zip(names, given)))


def assert_close(actual, wanted, tolerance):
    for got, tensor in zip(actual, wanted, strict=True):
        want = tensor.detach().numpy()
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        scale = np.abs(want).max(initial=0)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)


@pytest.fixture
def check_export(tmp_path):
    """Exports a module; onnxruntime must agree with torch, with the library and without it."""

    def check(module, *inputs, operator, others=(), **kwargs):
        path = tmp_path / "model.onnx"
        module = module.eval()
        graphscale.export(module, inputs, path, **kwargs)
        assert operator in [node.op_type for node in ir.load(path).graph]
        for tensors in (inputs, *others):
            wanted = module(*tensors)
            wanted = [wanted] if isinstance(wanted, torch.Tensor) else wanted
            for library in (True, False):
                assert_close(run(path, tensors, library), wanted, 1e-5)

    return check


@pytest.fixture
def check_operator(tmp_path):
    """One node: torch's operator, the library in onnxruntime and the function body must agree."""

    def check(name, *inputs, tolerance=1e-5, body=True, **attributes):
        operator = OPERATORS[name]
        wanted = operator(*inputs, **attributes)
        wanted = [wanted] if isinstance(wanted, torch.Tensor) else wanted
        values = [
            None
            if tensor is None
            else ir.Value(
                name=f"input_{i}",
                type=ir.TensorType(TYPES[tensor.dtype]),
                shape=ir.Shape(tensor.shape),
            )
            for i, tensor in enumerate(inputs)
        ]
        while values and values[-1] is None:
            values.pop()
        node = ir.node(
            name, values, attributes, domain=DOMAIN, num_outputs=len(wanted), name="the_node"
        )
        for i, (value, tensor) in enumerate(zip(node.outputs, wanted)):
            value.name = f"output_{i}"
            value.type = ir.TensorType(TYPES[tensor.dtype])
            value.shape = ir.Shape(tensor.shape)
        graph = ir.Graph(
            [value for value in values if value is not None],
            node.outputs,
            nodes=[node],
            opset_imports={"": 20, DOMAIN: VERSION},
            name="graph",
        )
        model = ir.Model(graph, ir_version=10)
        add_function_bodies(model)
        path = tmp_path / f"{name}.onnx"
        ir.save(model, path)
        assert_close(run(path, inputs, library=True), wanted, tolerance)
        if body:
            assert_close(run(path, inputs, library=False), wanted, tolerance)

    return check
