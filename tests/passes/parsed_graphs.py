"""Graphs of a few nodes, written as text, for the tests of one pass."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from graphscale.core.model_files import load_model


def parse(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """The model that `text` describes in ONNX's textual syntax, with initializers added."""
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def read(text: str, **weights: np.ndarray) -> ir.Model:
    """The same as an onnx-ir model."""
    return load_model(parse(text, **weights))


def operators(model: ir.Model) -> list[str]:
    """The operators of the main graph in their order."""
    return [node.op_type for node in model.graph]


def run(model: ir.Model | onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime makes of the model, which ONNX's checker must find in order."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
