"""Translate a program of torch.export to an ONNX graph.

In: a functional program, whose operators are torch's commonest. Out: the model that torch.onnx
makes of it, in a small part of the time; None for a program with any other operator, which is left
to torch.onnx.

torch.onnx prepares scripts for all of torch's operators at each call and runs several of them for
each node. Most convolutional networks need few operators, which `aten_operators` translates to one
node each.
"""

from __future__ import annotations

import operator
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind

from graphscale.modules.aten_operators import TRANSLATIONS
from graphscale.modules.program_graph import NotTranslatedError, Number, ProgramGraph

_OPSET = 20  # torch.onnx's own default
_OPSET_FOR_BFLOAT16 = 22  # the first one with convolutions in bfloat16
_WEIGHTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_ARITHMETIC = {operator.mul: "Mul", operator.add: "Add", operator.sub: "Sub"}


def translate_program(program: torch.export.ExportedProgram) -> ir.Model | None:
    """The ONNX model of `program`, or None where torch.onnx has to make it.

    Initializers have the names of the module's parameters and buffers. Each node's metadata tells
    the submodule that it comes from. A symbolic first axis is called 'batch'.
    """
    try:
        return _Translation(program).model()
    except NotTranslatedError:
        return None


class _Translation:
    """Walks over one program.

    Each node of the program is known as a value, a tuple of values, or a `Number`.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._program = program
        self._values: dict[fx.Node, Any] = {}
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []
        self._placeholders()
        self._graph = ProgramGraph({value.name for value in self._values.values()})

    def model(self) -> ir.Model:
        """The model of the whole program."""
        for node in self._program.graph.nodes:
            if node.op == "call_function" and node.users:
                self._values[node] = self._call(node)
            elif node.op not in ("call_function", "placeholder", "output"):
                raise NotTranslatedError
        wide = any(value.dtype == ir.DataType.BFLOAT16 for value in self._initializers)
        graph = ir.Graph(
            self._inputs,
            self._outputs(),
            nodes=self._graph.nodes,
            initializers=[*self._initializers, *self._graph.constants],
            opset_imports={"": _OPSET_FOR_BFLOAT16 if wide else _OPSET},
            name="main_graph",
        )
        return ir.Model(graph, ir_version=10)

    def _placeholders(self) -> None:
        """Make values of the program's inputs, of its weights and of its constants."""
        program = self._program
        tensors = {**program.state_dict, **program.constants}
        nodes = (node for node in program.graph.nodes if node.op == "placeholder")
        for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
            is_weight = spec.kind in _WEIGHTS
            if not is_weight and spec.kind is not InputKind.USER_INPUT:
                raise NotTranslatedError
            if not isinstance(node.meta.get("val"), torch.Tensor):
                raise NotTranslatedError
            if is_weight and not node.users:
                continue
            value = ir.Value(name=spec.target if is_weight else node.name)
            _describe(value, node.meta["val"])
            self._values[node] = value
            if is_weight:
                value.const_value = TorchTensor(tensors[spec.target], name=value.name)
            (self._initializers if is_weight else self._inputs).append(value)

    def _outputs(self) -> list[ir.Value]:
        """The program's outputs; each must be a tensor of its own that the program computes."""
        specs = self._program.graph_signature.output_specs
        (last,) = (node for node in self._program.graph.nodes if node.op == "output")
        outputs = [self._values.get(each) for each in last.args[0] if isinstance(each, fx.Node)]
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
            raise NotTranslatedError
        if not all(isinstance(each, ir.Value) and each.producer() for each in outputs):
            raise NotTranslatedError
        if len(set(outputs)) < len(last.args[0]):
            raise NotTranslatedError
        return outputs

    def _call(self, node: fx.Node) -> Any:
        """What one call of the program computes."""
        if node.target is operator.getitem:
            source, index = node.args
            result = self._values[source][index]
            if result is None:
                raise NotTranslatedError
            _describe(result, node.meta["val"])
            return result
        self._graph.begin(node)
        if node.target in _ARITHMETIC:
            return self._arithmetic(node)
        translation = TRANSLATIONS.get(node.target)
        if translation is None:
            raise NotTranslatedError
        result = translation(self._graph, *self._arguments(node))
        if isinstance(result, ir.Value) and result.shape is None:
            _describe(result, node.meta["val"])
        return result

    def _arguments(self, node: fx.Node) -> list:
        """The arguments of a call, one for each of the operator's schema."""

        def known(argument: Any) -> Any:
            if isinstance(argument, fx.Node):
                return self._values[argument]
            if isinstance(argument, list | tuple):
                return [known(each) for each in argument]
            return argument

        parameters = node.target._schema.arguments
        given = dict(zip((each.name for each in parameters), node.args)) | node.kwargs
        return [known(given.get(each.name, each.default_value)) for each in parameters]

    def _arithmetic(self, node: fx.Node) -> Number:
        """The result of arithmetic with numbers that follow the batch."""
        if isinstance(node.meta["val"], torch.Tensor):
            raise NotTranslatedError
        operands = [
            self._values[each].value if isinstance(each, fx.Node) else self._graph.constant([each])
            for each in node.args
        ]
        return Number(self._graph.op(_ARITHMETIC[node.target], *operands))


def _describe(value: ir.Value, like: torch.Tensor) -> None:
    """Give a value the type and shape of a tensor."""
    sizes = [size if isinstance(size, int) else _symbol(size) for size in like.shape]
    value.shape = ir.Shape(sizes)
    value.type = ir.TensorType(from_torch_dtype(like.dtype))


def _symbol(size: torch.SymInt) -> str:
    """The name of a size that follows the batch: 'batch', or a formula with it."""
    symbols = sorted(map(str, size.node.expr.free_symbols))
    return str(size.node.expr).replace(symbols[0], "batch") if len(symbols) == 1 else str(size)
