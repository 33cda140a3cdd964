"""Rewrite a model's convolutions to FFTConv where that is faster on this machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from graphscale.errors import GraphScaleError
from graphscale.input_size import InputSize, input_shapes
from graphscale.model import ModelLike, load_model
from graphscale.passes.accelerate import replace_convolutions
from graphscale.passes.choose_kernels import node_name
from graphscale.passes.find_convolutions import ConvolutionProblem, problem_of, unsuitable
from graphscale.passes.measure_extents import measure
from graphscale.runtime import get_library_path, session
from graphscale.tuning import Tuner
from graphscale.tuning import measure as measure_seconds

_LARGEST_DIFFERENCE = 1e-4  # relative, of the outputs


@dataclass
class LayerChoice:
    """What was chosen for one convolution.

    Attributes:
        name, kernel, x: The node, its kernel's taps and its input's shape.
        path: 'direct' or 'fft'.
        direct, fft: Seconds per run, measured here; None where FFT was out of the question.
        reason: Why it was.
    """

    name: str
    kernel: list[int]
    x: list[int]
    path: str
    direct: float | None = None
    fft: float | None = None
    reason: str | None = None


@dataclass
class Acceleration:
    """What was done to a model.

    Attributes:
        layers: Every convolution.
        difference: Largest difference of an output, relative to the output's norm.
        before, after: Seconds per run of the whole model.
    """

    layers: list[LayerChoice] = field(default_factory=list)
    difference: float = 0.0
    before: float | None = None
    after: float | None = None


def accelerate_model(
    model: ir.Model,
    *,
    input_size: str | None = None,
    batch: int = 1,
    tuner: Tuner | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Acceleration:
    """Rewrite the convolutions of `model`, in place, that FFT computes faster here.

    The function body of the operator is added, so that the result also runs in an onnxruntime
    without graphscale's library.

    Args:
        input_size: Height and width, where the model's own are symbolic.
        batch: Where the model's own is symbolic.
        progress: Told after each convolution how many of how many are done.

    Raises:
        GraphScaleError: the model does not run, or its outputs would change.
    """
    import onnxruntime

    source = model.meta.get("source", "the model")
    shapes = input_shapes(model, InputSize.parse(input_size, fixed=False), batch)
    measured = measure(model, shapes)
    nodes = [node for node in model.graph if node.op_type == "Conv" and node.domain == ""]
    if not nodes:
        raise GraphScaleError(f"{source}: holds no convolution; there is nothing to accelerate")
    tuner = tuner or Tuner(f"onnxruntime {onnxruntime.__version__}, kernels {_kernels()}")
    result = Acceleration()
    chosen = []
    for done, node in enumerate(nodes, start=1):
        problem = problem_of(node, measured)
        choice = LayerChoice(node_name(node), list(problem.weight[2:]), list(problem.x), "direct")
        choice.reason = unsuitable(node, measured)
        if choice.reason is None:
            timing = tuner.timing(problem.key, lambda problem=problem: _two_ways(problem))
            choice.path, choice.direct, choice.fft = timing.faster, timing.direct, timing.fft
        if choice.path == "fft":
            chosen.append(node)
        result.layers.append(choice)
        progress(done, len(nodes))
    if chosen:
        from graphscale.layers.export import add_function_bodies

        original = ir.to_proto(model)
        replace_convolutions(model, chosen)
        add_function_bodies(model)
        _compare(original, ir.to_proto(model), shapes, result, source)
    return result


def accelerate(model: ModelLike, **options) -> onnx.ModelProto | ir.Model:
    """The model with FFT convolutions where they are faster; options as `accelerate_model` has."""
    loaded = load_model(model)
    accelerate_model(loaded, **options)
    return loaded if isinstance(model, ir.Model) else ir.to_proto(loaded)


def _kernels() -> str:
    """Which build of the kernel library is measured."""
    return f"{zlib.crc32(Path(get_library_path()).read_bytes()):08x}"


def _two_ways(problem: ConvolutionProblem) -> tuple[Callable, Callable]:
    """Runs of the problem as one Conv node and as one FFTConv node."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(problem.x, np.float32)
    weight = generator.standard_normal(problem.weight, np.float32)
    runs = []
    for domain, op_type in (("", "Conv"), ("graphscale", "FFTConv")):
        names = ["x", "w", "b"][: 2 + problem.bias]
        node = onnx.helper.make_node(op_type, names, ["y"], domain=domain, **problem.attributes)
        held = [onnx.numpy_helper.from_array(weight, "w")]
        if problem.bias:
            held.append(
                onnx.numpy_helper.from_array(weight[:, 0].reshape(len(weight), -1)[:, 0], "b")
            )
        kind = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            [node],
            "convolution",
            [onnx.helper.make_tensor_value_info("x", kind, problem.x)],
            [onnx.helper.make_tensor_value_info("y", kind, None)],
            held,
        )
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("graphscale", 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        opened = session(model.SerializeToString())
        runs.append(lambda opened=opened: opened.run(None, {"x": x}))
    return runs[0], runs[1]


def _compare(
    original: onnx.ModelProto,
    accelerated: onnx.ModelProto,
    shapes: dict[str, list[int]],
    result: Acceleration,
    source: str,
) -> None:
    """Run both models on the same numbers: outputs must agree; the times are recorded."""
    sessions = [session(each.SerializeToString()) for each in (original, accelerated)]
    generator = np.random.default_rng(0)
    feeds = {
        each.name: _numbers(each.type, shapes[each.name], generator)
        for each in sessions[0].get_inputs()
    }
    outputs = [each.run(None, feeds) for each in sessions]
    for value, before, after in zip(original.graph.output, *outputs, strict=True):
        before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
        norm = float(np.linalg.norm(before)) or 1.0
        difference = float(np.linalg.norm(after - before)) / norm
        result.difference = max(result.difference, difference)
        if not difference <= _LARGEST_DIFFERENCE:
            raise GraphScaleError(
                f"{source}: output {value.name!r} changes by {difference:.1e} with FFT "
                f"convolutions, more than {_LARGEST_DIFFERENCE:.0e}; the model was left as it is"
            )
    timing = measure_seconds(*(lambda s=session: s.run(None, feeds) for session in sessions))
    result.before, result.after = timing.direct, timing.fft


def _numbers(kind: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    dtypes = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    if "int" in kind:
        return np.zeros(shape, np.int64 if "64" in kind else np.int32)
    return generator.standard_normal(shape).astype(dtypes.get(kind, np.float32))
