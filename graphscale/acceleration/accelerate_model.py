"""Rewrites an ONNX model's convolutions to FFTConv where that is faster on this machine.

A model goes in. Each convolution is measured alone, as onnxruntime's Conv and by each algorithm of
FFTConv; then the choices are tried in the whole model. The rewritten model comes out, and an
`Acceleration` that says what was chosen and why.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnx
import onnx_ir as ir

from graphscale.acceleration.choose_layers import Algorithms, choose_layers, rewrite_model
from graphscale.acceleration.whole_model import Original, open_model, shapes_of
from graphscale.core import c_api
from graphscale.core.arguments import whole_number
from graphscale.core.errors import GraphScaleError, about
from graphscale.core.model_files import ModelLike, load_model, to_proto
from graphscale.core.node_names import forget_given_names, node_name
from graphscale.core.requirements import onnxruntime_for
from graphscale.core.runtime import get_library_path, refusals
from graphscale.core.trials import Change
from graphscale.core.tuning import Candidates, Tuner, fastest
from graphscale.passes.accelerate.find_convolutions import (
    ConvolutionProblem,
    find_convolutions,
    find_hidden_convolutions,
    problem_of,
    unsuitable,
)
from graphscale.passes.accelerate.rewrite_convolutions import algorithm_of
from graphscale.passes.normalize.normalize import normalize
from graphscale.rescaling.input_size import InputSize, input_shapes

RUNTIME = "onnxruntime"  # the runtime's own Conv; the other candidates are algorithms of FFTConv
_TRIALS = 5  # of the whole model that are expected, for the progress


@dataclass
class LayerChoice:
    """What was chosen for one convolution.

    Attributes:
        name: The node's name.
        kernel: The kernel's size; empty for a node inside a branch or loop.
        x: The input's shape; empty for a node inside a branch or loop.
        path: 'onnxruntime', or the algorithm of FFTConv: 'direct', 'winograd 6x6', 'dense 32x32' ….
        seconds: Per run of the layer alone, for each candidate that was measured.
        reason: Why the node stays onnxruntime's Conv, though it was not measured or though an
            algorithm was faster alone; None otherwise.
    """

    name: str
    kernel: list[int]
    x: list[int]
    path: str = RUNTIME
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def gain(self) -> float:
        """How many times faster the chosen path is than the runtime's own Conv; 1 unmeasured."""
        return self.seconds[RUNTIME] / self.seconds[self.path] if self.seconds else 1.0


@dataclass
class Acceleration:
    """What `accelerate_model` did to a model.

    Attributes:
        layers: All convolutions, in the order of the graph; those inside branches and loops last.
        difference: The largest change of an output: the norm of the change relative to the
            output's norm.
        before, after: Seconds per run of the whole model; None where no layer was worth a trial.
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
    measure_again: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Acceleration:
    """Let each convolution of `model` use the algorithm that is the fastest here, in place.

    Conv nodes become FFTConv nodes with an algorithm where that is faster alone and in the whole
    model; FFTConv nodes get an algorithm, or become Conv. The function body of FFTConv is added, so
    that the result also runs in an onnxruntime without graphscale's library.

    Args:
        model: A model that runs in onnxruntime.
        input_size: Height and width of the images, such as '224x160', where the model leaves them
            open.
        batch: The batch size, where the model leaves it open.
        tuner: Holds the measurements; by default in the user's cache folder.
        measure_again: Use no measurement of earlier runs, without a `tuner`.
        progress: Called with (done, total) after each convolution and after each trial of the
            whole model.

    Raises:
        GraphScaleError: the model holds no Conv, does not run, or its outputs would change.
    """
    onnxruntime = onnxruntime_for("graphscale.accelerate")
    source = model.meta.get("source", "the model")
    batch = whole_number("batch", batch, 1)
    size = InputSize.parse(input_size, fixed=False)
    if size.pretrain is not None:
        raise GraphScaleError(f"input size {input_size!r}: give one size, as in 160 or 160x128")
    normalize(model)
    nodes, hidden = find_convolutions(model), find_hidden_convolutions(model)
    if not nodes and not hidden:
        raise GraphScaleError(f"{source}: holds no Conv node; there is nothing to accelerate")
    with refusals(source):
        original = Original(model, input_shapes(model, size, batch), source)
        values = [value for node in nodes for value in (*node.inputs[:2], node.outputs[0])]
        shapes = shapes_of(model, values, original.feeds)
    if tuner is None:
        runtime = f"onnxruntime {onnxruntime.__version__}, kernels {_kernels()}"
        tuner = Tuner(runtime, default=RUNTIME, measure_again=measure_again)
    result = Acceleration()
    problems: list[str] = []
    done, total = 0, len(nodes) + _TRIALS
    for done, node in enumerate(nodes, start=1):
        problem = problem_of(node, shapes)
        choice = LayerChoice(node_name(node), list(problem.weight[2:]), list(problem.x))
        choice.reason = unsuitable(node, shapes, model.ir_version)
        if choice.reason is None:
            with refusals(f"{source}: node {choice.name!r}"):
                known = tuner.known(problem.key)
                if known and not set(known) <= {RUNTIME, *_algorithms(problem)}:
                    tuner.forget(problem.key)  # a damaged entry
                seconds = tuner.seconds(problem.key, lambda problem=problem: _candidates(problem))
            choice.seconds, choice.path = seconds, fastest(seconds, RUNTIME)
        result.layers.append(choice)
        problems.append(problem.key)
        progress(done, total)

    def tried() -> None:
        nonlocal done
        done = min(done + 1, total)
        progress(done, total)

    with refusals(source):
        _rewrite(model, result, problems, original, tried)
    progress(total, total)
    for node, outer in hidden:
        reason = f"it stands inside {node_name(outer)!r} ({outer.op_type})"
        result.layers.append(LayerChoice(node_name(node), [], [], reason=reason))
    forget_given_names(model)
    return result


@overload
def accelerate(model: str | os.PathLike | onnx.ModelProto, **options: Any) -> onnx.ModelProto: ...


@overload
def accelerate(model: ir.Model, **options: Any) -> ir.Model: ...


def accelerate(model: ModelLike, **options: Any) -> onnx.ModelProto | ir.Model:
    """The model with FFTConv in place of Conv where that is faster on this machine.

    Measures each convolution in onnxruntime as it is and by the promising algorithms of FFTConv,
    and takes those changes with which the whole model is the fastest. The result also runs in an
    onnxruntime without graphscale's library.

    Args:
        model: A path, an onnx.ModelProto or an onnx-ir model, which is changed in place.
        options: `input_size` (height and width as '224' or '224x160', where the model's own are
            symbolic), `batch` (where the model's own is symbolic; 1 by default) and
            `measure_again` (True to use no measurement of earlier runs).

    Returns:
        The model; the same object for an onnx-ir model, else an onnx.ModelProto.

    Raises:
        GraphScaleError: the model holds no Conv, does not run, or its outputs would change.

    Example:
        >>> onnx.save(accelerate("network.onnx", input_size="224"), "faster.onnx")
    """
    loaded = load_model(model)
    with about(model):
        accelerate_model(loaded, **options)
    return loaded if isinstance(model, ir.Model) else to_proto(loaded)


def _kernels() -> str:
    """A checksum of the kernel library: another build must be measured anew."""
    return f"{zlib.crc32(Path(get_library_path()).read_bytes()):08x}"


def _candidates(problem: ConvolutionProblem) -> Candidates:
    """Functions that run the problem as one Conv node and as one FFTConv node per algorithm."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(problem.x, np.float32)
    weight = generator.standard_normal(problem.weight, np.float32)
    candidates = {RUNTIME: _run_of(problem, x, weight, "Conv", "", problem.attributes)}
    for algorithm in _algorithms(problem):
        attributes = {**problem.attributes, "algorithm": algorithm}
        candidates[algorithm] = _run_of(problem, x, weight, "FFTConv", "graphscale", attributes)
    return candidates


def _algorithms(problem: ConvolutionProblem) -> list[str]:
    """The algorithms of FFTConv worth measuring."""
    kind = onnx.TensorProto.FLOAT
    inputs = [(kind, problem.x), (kind, problem.weight)]
    return c_api.algorithms("FFTConv", inputs, problem.attributes, len(os.sched_getaffinity(0)))


def _run_of(
    problem: ConvolutionProblem,
    x: np.ndarray,
    weight: np.ndarray,
    op_type: str,
    domain: str,
    attributes: dict[str, object],
) -> Callable[[], object]:
    """A function that runs a model of this one node, with `weight` as a constant."""
    names = ["x", "w", "b"][: 2 + problem.bias]
    node = onnx.helper.make_node(op_type, names, ["y"], domain=domain, **attributes)
    constants = [onnx.numpy_helper.from_array(weight, "w")]
    if problem.bias:
        constants.append(onnx.numpy_helper.from_array(np.ones(len(weight), np.float32), "b"))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "convolution",
        [onnx.helper.make_tensor_value_info("x", kind, problem.x)],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("graphscale", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    opened = open_model(ir.from_proto(model))
    return lambda: opened.run(None, {"x": x})


def _rewrite(
    model: ir.Model,
    result: Acceleration,
    problems: list[str],
    original: Original,
    progress: Callable[[], None],
) -> None:
    """Try the choices in the whole model, and rewrite the layers with which it is the fastest."""
    algorithms: dict[str, Algorithms] = {}
    for index, (choice, node) in enumerate(
        zip(result.layers, find_convolutions(model), strict=True)
    ):
        algorithm = None if choice.path == RUNTIME else choice.path
        if choice.seconds and algorithm != algorithm_of(node):
            algorithms.setdefault(problems[index], {})[index] = algorithm
    if not algorithms:
        return

    def change(indices: Algorithms) -> Change:
        choice = result.layers[next(iter(indices))]
        gain = math.inf if choice.path == RUNTIME else choice.gain
        return Change(len(indices) * choice.seconds[RUNTIME], gain)

    changes = {problem: change(indices) for problem, indices in algorithms.items()}
    chosen, result.before, result.after, result.difference = choose_layers(
        model, algorithms, changes, original, progress
    )
    rewrite_model(model, chosen)
    reason = "so the whole model is faster" if chosen else "the whole model would not be 5 % faster"
    for choice, node in zip(result.layers, find_convolutions(model), strict=True):
        if choice.path != RUNTIME and algorithm_of(node) is None:
            choice.path, choice.reason = RUNTIME, reason
