"""A case of benchmarks/layers.py: a layer with its sizes, inputs and alternatives.

`Case` describes what is measured; the other functions help to make alternatives for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import onnx
from torch import Tensor, nn


@dataclass
class Alternative:
    """Computes the same as the layer: by a torch module, a model for onnxruntime, or both.

    Attributes:
        module: Called with the arranged inputs.
        onnx: Run in onnxruntime with the arranged inputs.
        arrange: Makes the inputs from the layer's, outside of the measured time; None for the same.
        same: False where the result is arranged differently, or is only a part; it is not compared.
        gradient: Whether the module's gradients are measured, too.
    """

    module: nn.Module | None = None
    onnx: bytes | None = None
    arrange: Callable | None = None
    same: bool = True
    gradient: bool = True


@dataclass
class Case:
    """`make` returns the layer's module, its inputs, and the alternatives by name."""

    layer: str
    sizes: str
    make: Callable[[], tuple[nn.Module, tuple, dict[str, Alternative]]]
    gradient: bool = True
    onnx: bool = True


class Function(nn.Module):
    """A function as a module: of inputs, and of parameters that it takes by name."""

    def __init__(self, function: Callable, **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, *inputs):
        return self.function(*inputs, **dict(self.named_parameters()))


def one_node(op_type: str, inputs: tuple[Tensor, ...], *weights: Tensor, **attributes) -> bytes:
    """An ONNX model of one node, with inputs like `inputs` and `weights` as constants."""
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
    """The case of `layer` that `make(*arguments)` makes; `sizes` is its text in the results."""
    return Case(layer, sizes, partial(make, *arguments), **options)


def text_of(shape: tuple[int, ...]) -> str:
    """'16 x 192' for (16, 192)."""
    return " x ".join(map(str, shape))
