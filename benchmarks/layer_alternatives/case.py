"""What a case is: a layer, sizes, and other ways to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import onnx
from torch import Tensor, nn


@dataclass
class Other:
    """Another way: a torch module, a model for onnxruntime, or both."""

    module: nn.Module | None = None
    onnx: bytes | None = None
    arrange: Callable | None = None  # makes this way's inputs of the layer's, untimed
    same: bool = True  # False where the result is arranged differently, or is less
    gradient: bool = True


@dataclass
class Case:
    layer: str
    sizes: str
    make: Callable[[], tuple[nn.Module, tuple, dict[str, Other]]]
    gradient: bool = True
    onnx: bool = True


class Function(nn.Module):
    """A function of inputs, and of the parameters that are given by name."""

    def __init__(self, function: Callable, **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, *inputs):
        return self.function(*inputs, **dict(self.named_parameters()))


def one_node(op_type: str, inputs: tuple[Tensor, ...], *weights: Tensor, **attributes) -> bytes:
    """A model of one ONNX node that takes `inputs` and has `weights` as constants."""
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    names = [f"x{i}" for i in range(len(inputs))], [f"w{i}" for i in range(len(weights))]
    node = onnx.helper.make_node(op_type, [*names[0], *names[1]], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [value(name, shape=list(x.shape)) for name, x in zip(names[0], inputs)],
        [value("y", shape=None)],
        [onnx.numpy_helper.from_array(w.detach().numpy(), n) for n, w in zip(names[1], weights)],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def make_case(layer: str, make: Callable, sizes: str, *arguments, **options) -> Case:
    return Case(layer, sizes, partial(make, *arguments), **options)


def text_of(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
