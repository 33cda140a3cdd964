"""Each public function with each kind of model that it takes, and the type of what it gives."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import onnx
import onnx_ir as ir
import torch

import graphscale
from graphscale import layers


def plan(path: Path, proto: onnx.ModelProto, model: ir.Model) -> None:
    assert_type(graphscale.plan(path), graphscale.Plan)
    assert_type(graphscale.plan(proto, input_size="224:160"), graphscale.Plan)
    assert_type(graphscale.plan(model, kernels={3: 2}, keep=["stem*"]), graphscale.Plan)


def shrink(proto: onnx.ModelProto, model: ir.Model, module: torch.nn.Module) -> None:
    image = torch.zeros(1, 3, 64, 64)
    assert_type(graphscale.shrink("model.onnx"), onnx.ModelProto)
    assert_type(graphscale.shrink(Path("model.onnx"), init="fresh", seed=1), onnx.ModelProto)
    assert_type(graphscale.shrink(proto, input_size=(48, 64)), onnx.ModelProto)
    assert_type(graphscale.shrink(model), ir.Model)
    assert_type(graphscale.shrink(module, image), torch.nn.Module)


def grow(proto: onnx.ModelProto, model: ir.Model, module: torch.nn.Module) -> None:
    assert_type(graphscale.grow("trained.onnx", plan="model.plan.json"), onnx.ModelProto)
    assert_type(graphscale.grow(proto, target=Path("model.onnx")), onnx.ModelProto)
    assert_type(graphscale.grow(model, resize="bicubic"), ir.Model)
    assert_type(graphscale.grow(module, target=module), torch.nn.Module)


def accelerate(proto: onnx.ModelProto, model: ir.Model) -> None:
    assert_type(graphscale.accelerate("model.onnx", batch=8), onnx.ModelProto)
    assert_type(graphscale.accelerate(proto), onnx.ModelProto)
    assert_type(graphscale.accelerate(model), ir.Model)


def names(error: graphscale.GraphScaleError) -> None:
    assert_type(graphscale.get_library_path(), str)
    assert_type(graphscale.__version__, str)
    caught: Exception = error
    network: torch.nn.Module = graphscale.load("model.onnx")
    graphscale.save(network, "checkpoint.onnx")
    convolution: torch.nn.Module = layers.FFTConv2d(3, 8, 5)
    del caught, convolution
