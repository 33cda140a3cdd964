"""`load`: an ONNX model as a trainable torch module.

In: a model, brought into the normal form of `passes.normalize`. Out: a `Network`. The importer
walks the nodes once, in order. Nodes whose inputs are all constants are evaluated at once; the
translation of every other node is recorded into a torch program. Shapes are computed at several
batch sizes, so that a number that grows with the batch (a Reshape's target) is recognised and the
module takes any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphscale.convert.network import Network, Source
from graphscale.convert.node import NodeView
from graphscale.convert.operators import TRANSLATIONS, Translation
from graphscale.convert.tensors import to_torch, torch_dtype
from graphscale.convert.tracing import ProgramValue, Tracer, is_program_value
from graphscale.convert.weights import Weights, find_weights
from graphscale.core.arguments import whole_numbers, wrong
from graphscale.core.errors import GraphScaleError, about
from graphscale.core.model_files import ModelLike, load_model
from graphscale.layers.quiet_tracing import quiet_tracing
from graphscale.passes.normalize.dequantize_weights import DequantizeWeights
from graphscale.passes.normalize.normalize import normalize
from graphscale.passes.normalize.select_branches import SelectBranches, lift_branch_weights
from graphscale.passes.normalize.unroll_loops import UnrollLoops
from graphscale.passes.normalize.untie_weights import UntieWeights
from graphscale.passes.spatial.image_positions import spatial_positions

# Two batch sizes give the line on which a number depends on the batch, the third confirms it.
# None of them is 1, because an axis of size 1 broadcasts.
_BATCHES = (3, 5, 8)
# Elements. A larger tensor that depends on the batch is computed by the program, not beforehand.
_LARGEST_ARITHMETIC = 4096


def load(
    model: ModelLike,
    *,
    dtype: torch.dtype | None = None,
    input_size: Sequence[int] | None = None,
) -> Network:
    """Turn an ONNX model into a torch module that computes the same and can be trained.

    Parameters have the names of the model's initializers. BatchNormalization and Dropout follow
    train() and eval(). The module takes any batch that the model allows.

    An export in evaluation mode has no Dropout, and its BatchNormalization may be folded into the
    convolutions; the module cannot bring them back. `graphscale.convert.lost_for_training(model)`
    says whether a file looks like that, and how to export it for training.

    Args:
        model: Path of an ONNX model, or the model in memory.
        dtype: Convert floating-point weights to this type, in which inputs are then expected; by
            default each keeps its own.
        input_size: Height and width, for models that leave them open.

    Returns:
        The module, in training mode, on the CPU.

    Raises:
        GraphScaleError: the model cannot be read, leaves a size open that `input_size` does not
            give, or has operators without a translation to torch.

    Example:
        >>> network = graphscale.load("model.onnx")                               # doctest: +SKIP
        >>> scores = network(torch.zeros(8, 3, 224, 224))                         # doctest: +SKIP
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise wrong("dtype", dtype, "a floating-point type of torch, such as torch.float32")
    if input_size is not None:
        input_size = whole_numbers("input_size", input_size, "the sizes, as (height, width)")
    with about(model):
        return _network(model, dtype, input_size, to_torch).train()


def load_structure(model: ModelLike, batch: int) -> Network:
    """The network that `load` makes of `model`, with zeros for weights, which take no memory.

    Every weight has its shape and dtype, and strides of 0 over a single zero. The network takes
    batches of `batch` images alone, so that shapes are computed only once.
    """

    def zeros(tensor: ir.TensorProtocol) -> torch.Tensor:
        shape = tuple(tensor.shape.numpy())
        return torch.zeros((), dtype=torch_dtype(tensor.dtype)).expand(shape)

    return _network(model, None, None, zeros, (batch,))


def _network(
    model: ModelLike,
    dtype: torch.dtype | None,
    input_size: Sequence[int] | None,
    weight_of: Callable[[ir.TensorProtocol], torch.Tensor],
    batches: Sequence[int] = _BATCHES,
) -> Network:
    """Import `model`; `weight_of` makes the torch weight of an ONNX tensor."""
    original = load_model(model)
    lift_branch_weights(original)
    DequantizeWeights()(original)
    UntieWeights()(original)
    options = {"dtype": dtype, "input_size": input_size}
    source = Source(original, original.meta.get("source", "the model in memory"), options, load)
    graph = _normal(original).graph
    _check_operators(graph, source.name)
    weights = find_weights(graph, source.name, _names(original.graph))
    network = Network(source)
    for values, kind in ((weights.parameters, torch.nn.Parameter), (weights.statistics, _buffer)):
        for value, tensor in values.items():
            network.add_weight(value.name, kind(_converted(weight_of(tensor), dtype)))

    def program(batches: Sequence[int]) -> torch.fx.Graph:
        return _Importer(network, graph, weights, dtype, input_size, batches).program()

    with quiet_tracing():
        try:
            network.set_program(program(batches))
        except GraphScaleError as error:
            if 1 in batches or not _has_program_of_one_image(program):
                raise
            raise GraphScaleError(
                f"{error}; the model declares inputs of any batch, but takes one image alone: "
                "declare a batch of 1"
            ) from None
    return network


def _has_program_of_one_image(program: Callable[[Sequence[int]], torch.fx.Graph]) -> bool:
    """Whether a model can be imported for one image, as where a state or a Reshape fixes that."""
    try:
        program((1,))
    except GraphScaleError:
        return False
    return True


def _buffer(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _names(graph: ir.Graph) -> set[str]:
    """The names of all values that the graph itself defines."""
    return {*graph.initializers, *(output.name for node in graph for output in node.outputs)}


def _normal(model: ir.Model) -> ir.Model:
    """A copy of `model` in normal form; calls of functions that have a translation stay nodes."""
    copy = model.clone()
    copy.meta.update(model.meta)
    normalize(copy, keep=TRANSLATIONS)
    SelectBranches()(copy)
    UnrollLoops()(copy)
    return copy


def _check_operators(graph: Iterable[ir.Node], source: str) -> None:
    """Raise an error that lists all operators without a translation."""
    missing: dict[str, list[str]] = {}
    for node in graph:
        if (_domain(node), node.op_type) not in TRANSLATIONS:
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            missing.setdefault(name, []).append(repr(node.name))
    if missing:
        what = "; ".join(
            f"{name} (node{'s' if len(nodes) > 1 else ''} {', '.join(nodes[:3])}"
            f"{', …' if len(nodes) > 3 else ''})"
            for name, nodes in missing.items()
        )
        raise GraphScaleError(
            f"{source}: cannot be trained in torch, these operators have no translation: {what}; "
            "replace them, or register one with graphscale.convert.operators.translates"
        )


class _Varying:
    """A tensor whose elements depend on the batch, as a Shape's: its value at each batch size."""

    def __init__(self, samples: list[torch.Tensor]) -> None:
        self.samples = samples


class _Importer:
    """Imports one graph.

    Each value of the graph is known as one of three kinds: a torch tensor where it is constant,
    `_Varying` where it is computed from the batch size, `ProgramValue` where the program computes
    it.
    """

    def __init__(
        self,
        network: Network,
        graph: ir.Graph,
        weights: Weights,
        dtype: torch.dtype | None,
        input_size: Sequence[int] | None,
        batches: Sequence[int],
    ) -> None:
        self._network = network
        self._graph = graph
        self._dtype = dtype
        self._name = network.source.name
        self._opsets = graph.opset_imports
        inputs = [v for v in graph.inputs if v.name not in graph.initializers]
        shapes = [self._input_shape(value, input_size) for value in inputs]
        symbolic = any(None in shape for shape in shapes)
        self._tracer = Tracer(network, batches if symbolic else batches[:1])
        self._values: dict[ir.Value, Any] = {}
        for value, shape in zip(inputs, shapes):
            sizes = [[n if d is None else d for d in shape] for n in self._tracer.batches]
            input_dtype = torch_dtype(value.dtype)
            if dtype is not None and input_dtype.is_floating_point:
                input_dtype = dtype
            try:
                self._values[value] = self._tracer.input(value.name, sizes, input_dtype)
            except RuntimeError as error:
                raise GraphScaleError(
                    f"{self._name}: input {value.name!r} is too large for torch ({error}); declare "
                    "the sizes of real inputs"
                ) from None
        for value in (*weights.parameters, *weights.statistics):
            self._values[value] = self._weight(value.name)

    def program(self) -> torch.fx.Graph:
        """The torch program of the whole graph."""
        results = tuple(map(self._tensor, self._run(self._graph)))
        return self._tracer.finish(results[0] if len(results) == 1 else results)

    def _run(self, graph: ir.Graph) -> list:
        """The results of a graph, or of a branch in it."""
        for value in graph.initializers.values():
            tensor = value.const_value
            if value in self._values or tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            self._values[value] = to_torch(tensor)
        for node in graph:
            if not all(output in self._values for output in node.outputs):
                self._node(node)
        return [self._values[value] for value in graph.outputs]

    def _input_shape(self, value: ir.Value, input_size: Sequence[int] | None) -> list[int | None]:
        """Sizes of an input; None stands for the batch."""
        if value.shape is None or value.dtype is None:
            raise GraphScaleError(
                f"{self._name}: input {value.name!r} has no shape or type; declare them"
            )
        spatial = list(spatial_positions(value, len(value.shape)))
        places = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
        places = [axis for axis in places if axis > 0 or axis in spatial]
        given = dict(zip(places, input_size or ()))
        whole = bool(places and spatial and input_size) and len(spatial) <= len(input_size)
        if whole:  # a size for each height and width, of which only some may be open
            given = dict(zip(spatial, input_size))
        shape: list[int | None] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                if whole and size != given.get(axis, size):
                    raise GraphScaleError(
                        f"{self._name}: input {value.name!r} has the fixed size {size} and cannot "
                        f"be {given[axis]}; give input_size the model's own numbers where it has "
                        "some"
                    )
                shape.append(size)
            elif axis in given:
                shape.append(int(given[axis]))
            elif axis == 0 and axis not in spatial:
                shape.append(None)
            else:
                raise GraphScaleError(
                    f"{self._name}: input {value.name!r} leaves its size open ({value.shape}); "
                    "give its open sizes in their order, as input_size=(height, width)"
                )
        return shape

    def _weight(self, name: str) -> ProgramValue:
        """The program's access to a weight."""
        tensor = self._network.weight(name)
        if self._network.is_attribute(name):
            return self._tracer.attribute(name, tensor)
        return self._tracer.module(self._network.odd_name(name), "OddName")()

    def _node(self, node: ir.Node) -> None:
        """Compute the outputs of a node, beforehand if possible, else as steps of the program."""
        _check_operators([node], self._name)
        translation = TRANSLATIONS[_domain(node), node.op_type]
        opset = self._opsets.get(_domain(node), 1)
        view = NodeView(node, opset, self._tracer, self._name, self._dtype, self._run)
        inputs = [None if value is None else self._values.get(value) for value in node.inputs]
        while inputs and node.inputs[len(inputs) - 1] is None:
            inputs.pop()
        try:
            known = not any(is_program_value(value) for value in inputs)
            results = (
                self._evaluate(translation, view, inputs)
                if known or translation.shape_only
                else None
            )
            if results is None:
                results = self._trace(translation, view, inputs)
        except GraphScaleError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise GraphScaleError(
                f"{self._name}: node {node.name!r} ({node.op_type}) cannot be turned into torch: "
                f"{reason}; check the model"
            ) from error
        for value, result in zip(node.outputs, results):
            self._values[value] = result

    def _evaluate(self, translation: Translation, node: NodeView, inputs: list) -> list | None:
        """Compute the node's results now, once per batch size; None if the program must do it."""
        varies = any(isinstance(value, _Varying | ProgramValue) for value in inputs)
        runs = []
        for index in range(len(self._tracer.batches) if varies else 1):
            arguments = [
                value.samples[index] if isinstance(value, _Varying | ProgramValue) else value
                for value in inputs
            ]
            results = translation.function(
                node, *_numbered(translation, arguments, torch.Tensor.tolist)
            )
            runs.append(_unpacked(results, node.output_count))
        combined = [_combined(samples) for samples in zip(*runs)]
        return None if any(value is None for value in combined) else combined

    def _trace(self, translation: Translation, node: NodeView, inputs: list) -> list:
        """Record the node's results as steps of the program."""

        def numbers(value: Any) -> Any:
            if is_program_value(value):
                node.fail(
                    "it needs numbers that are known only when the network runs; export the model "
                    "with fixed sizes, or cut it before the node"
                )
            return self._symbolic(value, node) if isinstance(value, _Varying) else value.tolist()

        arguments = _numbered(translation, inputs, numbers, lambda value: self._tensor(value, node))
        return _unpacked(translation.function(node, *arguments), node.output_count)

    def _symbolic(self, value: _Varying, node: NodeView) -> Any:
        """The elements of `value` as Python numbers or steps of the program.

        Each is fitted by slope * batch + offset; what no such line fits is refused.
        """
        sizes = self._tracer.batches
        samples = [sample.reshape(-1).tolist() for sample in value.samples]
        numbers = []
        for points in zip(*samples):
            slope = (points[1] - points[0]) / (sizes[1] - sizes[0])
            offset = points[0] - slope * sizes[0]
            line = [slope * size + offset for size in sizes]
            if not all(map(math.isclose, line, points)):
                node.fail("it needs a number that does not follow the batch in a straight line")
            whole = isinstance(points[0], int)
            numbers.append(self._line(int(slope) if whole else slope, type(points[0])(offset)))
        return numbers if value.samples[0].ndim else numbers[0]

    def _line(self, slope: float, offset: float) -> Any:
        """slope * batch + offset, with as few steps as possible."""
        if not slope:
            return offset
        number = self._tracer.batch if slope == 1 else self._tracer.batch * slope
        return number + offset if offset else number

    def _tensor(self, value: Any, node: NodeView | None = None) -> Any:
        """`value` as a translation takes it: a tensor or a step of the program."""
        if isinstance(value, torch.Tensor):
            return _converted(value, self._dtype)
        if not isinstance(value, _Varying):
            return value
        numbers = self._symbolic(value, node)
        sample = value.samples[0]
        tensor = self._tracer.create_proxy(
            "call_function",
            torch.tensor,
            (numbers,),
            {"dtype": sample.dtype, "device": self._tracer.device},
        )
        return tensor.reshape(tuple(sample.shape)) if sample.ndim > 1 else tensor


def _numbered(
    translation: Translation,
    inputs: list,
    numbers: Callable[[Any], Any],
    otherwise: Callable[[Any], Any] = lambda value: value,
) -> list:
    """`inputs`; those that the translation takes as Python numbers are converted by `numbers`."""
    return [
        value
        if value is None
        else numbers(value)
        if index in translation.numbers
        else otherwise(value)
        for index, value in enumerate(inputs)
    ]


def _unpacked(results: Any, count: int) -> list:
    """A translation's result, or tuple of results, as a list."""
    if isinstance(results, ProgramValue) and isinstance(results.samples[0], tuple | list):
        return [results[index] for index in range(count)]
    return list(results) if isinstance(results, tuple | list) else [results]


def _combined(samples: tuple) -> Any:
    """One value for the samples at each batch size; None if the program must compute it."""
    first, *others = samples
    if any(is_program_value(sample) for sample in samples):
        return first if not others else None
    if all(sample.shape == first.shape for sample in others):
        if all(torch.equal(sample, first) for sample in others):
            return first
        if first.numel() <= _LARGEST_ARITHMETIC:
            return _Varying(list(samples))
    return None
