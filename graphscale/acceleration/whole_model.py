"""Runs whole models in onnxruntime, to learn the shapes of tensors and to compare outputs.

`Original` takes a model, opens it and runs it on synthetic inputs; `shapes_of` returns the shapes
that tensors have in such a run; `relative_difference` says how far one output is from another.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from google.protobuf.message import EncodeError

from graphscale.core import runtime
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import save_model
from graphscale.core.requirements import onnxruntime_for

if TYPE_CHECKING:
    import onnxruntime

_FLOATS = ("float", "double")
# An output may change by this many times what onnxruntime's own optimizations change it.
_MAX_TIMES_ROUNDING = 10
# Share of an output of integers, such as classes, that may change: rounding swaps classes that are
# equally likely.
_MAX_SHARE = 0.01
Feeds = dict[str, np.ndarray]


def open_model(model: ir.Model, optimized: bool = True) -> onnxruntime.InferenceSession:
    """Open `model` in onnxruntime, without its log: the exceptions say what is wrong.

    Between two runs the session's threads sleep instead of spinning, so that sessions that take
    turns do not slow each other down.
    """
    levels = onnxruntime_for("graphscale.accelerate").GraphOptimizationLevel
    options = runtime.quiet_options()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimized:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
    try:
        return runtime.open_model(model, sess_options=options)
    except EncodeError:  # more than protobuf's 2 GiB that cannot be read in place: through a file
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return runtime.open_raw(str(path), sess_options=options)


class Original:
    """An opened model, synthetic inputs for it, and its outputs for these.

    Attributes:
        opened: The model's session.
        feeds: Inputs by name, normally distributed; only their absolute values, where outputs would
            not be finite otherwise (a logarithm or root of the input).
        outputs: The outputs of the first run on `feeds`.

    Raises:
        GraphScaleError: an input has a type for which there are no synthetic inputs.
    """

    def __init__(self, model: ir.Model, shapes: Mapping[str, Sequence[int]], source: str) -> None:
        self.opened = open_model(model)
        self._model = model.clone()
        self._source = source
        generator = np.random.default_rng(0)
        self.feeds = {
            each.name: _synthetic_input(each.name, each.type, shapes[each.name], generator)
            for each in self.opened.get_inputs()
        }
        try:
            self.outputs = self.opened.run(None, self.feeds)
        except Exception:
            # Optimized, the error may name a fused node; unoptimized, it names the model's own.
            _ = self._unoptimized
            raise
        if not all(np.isfinite(array).all() for array in _floats(self.outputs)):
            for array in self.feeds.values():
                if array.dtype.kind == "f":
                    np.abs(array, out=array)
            self.outputs = self.opened.run(None, self.feeds)

    @cached_property
    def _unoptimized(self) -> dict[str, Any]:
        """The outputs, by name, of the model without onnxruntime's optimizations."""
        opened = open_model(self._model, optimized=False)
        names = [value.name for value in opened.get_outputs()]
        return dict(zip(names, opened.run(names, self.feeds), strict=True))

    def difference(self, changed: onnxruntime.InferenceSession, largest: float) -> float:
        """The largest `relative_difference` of an output of `changed` from the original's.

        Args:
            changed: A session of the rewritten model that has not run yet.
            largest: The largest difference of a floating-point output that is accepted.

        Raises:
            GraphScaleError: a floating-point output differs by more than `largest` and by more
                than ten times what onnxruntime's optimizations change; or more than a hundredth of
                an output of integers differs. Names the output.
        """
        found = 0.0
        outputs = changed.run(None, self.feeds) if changed is not self.opened else self.outputs
        for value, before, after in zip(
            self.opened.get_outputs(), self.outputs, outputs, strict=True
        ):
            name, each = value.name, relative_difference(before, after)
            limit = largest if any(kind in value.type for kind in _FLOATS) else _MAX_SHARE
            if each <= limit:
                found = max(found, each)
                continue
            if relative_difference(before, self.opened.run([name], self.feeds)[0]) > limit:
                raise GraphScaleError(
                    f"{self._source}: output {name!r} changes from run to run and cannot be "
                    "compared; give the nodes that draw random numbers a seed"
                )
            # Some networks amplify rounding errors; onnxruntime's own optimizations show how much.
            limit = max(
                limit, _MAX_TIMES_ROUNDING * relative_difference(before, self._unoptimized[name])
            )
            if each <= limit:
                found = max(found, each)
                continue
            raise GraphScaleError(
                f"{self._source}: output {name!r} changes by {each:.1e} with FFT convolutions, "
                f"more than {limit:.0e}; the model is unchanged"
            )
        return found


def shapes_of(model: ir.Model, values: Iterable[ir.Value], feeds: Feeds) -> dict[ir.Value, tuple]:
    """The shape of each of `values`, tensors of the model's main graph, in a run on `feeds`.

    The model is run with a Shape node on each tensor, so that shapes are right for operators of any
    domain, branches, loops and sizes that depend on the data.
    """
    values = list(dict.fromkeys(values))
    if not values:
        return {}
    copy = model.clone()
    graph = copy.graph
    named = {value.name: value for value in graph.inputs}
    named |= graph.initializers
    named |= {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    for index, value in enumerate(values):
        node = ir.node("Shape", [named[value.name]], name=f"graphscale.shape.{index}")
        node.outputs[0].name = node.name
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    opened = open_model(copy)
    # onnxruntime drops inputs on which no shape depends.
    known = {each.name for each in opened.get_inputs()}
    found = opened.run(None, {name: array for name, array in feeds.items() if name in known})
    return {
        value: tuple(int(size) for size in shape)
        for value, shape in zip(values, found, strict=True)
    }


def relative_difference(before: Any, after: Any) -> float:
    """How far the output `after` is from `before`.

    For floating-point tensors the norm of the difference divided by the norm of `before`, over the
    elements that are finite in `before`; for integers and text the share of elements that differ;
    for sequences the largest difference of their tensors. Infinite where shapes differ or a finite
    element is no longer finite.

    Example:
        >>> relative_difference(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
        0.1
    """
    if isinstance(before, list):
        if len(before) != len(after):
            return float("inf")
        return max(map(relative_difference, before, after), default=0.0)
    if before is None or after is None:  # an optional output
        return 0.0 if before is after else float("inf")
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        return float("inf")
    if before.dtype.kind != "f":
        return float(np.mean(before != after)) if before.size else 0.0
    finite = np.isfinite(before)
    before, after = before[finite].astype(np.float64), after[finite].astype(np.float64)
    if not np.isfinite(after).all():
        return float("inf")
    return float(np.linalg.norm(after - before)) / (float(np.linalg.norm(before)) or 1.0)


def _floats(outputs: Iterable[Any]) -> Iterator[np.ndarray]:
    for output in outputs:
        if isinstance(output, list):
            yield from _floats(output)
        elif isinstance(output, np.ndarray) and output.dtype.kind == "f":
            yield output


def _synthetic_input(
    name: str, kind: str, shape: Sequence[int], generator: np.random.Generator
) -> np.ndarray:
    """A random tensor of onnxruntime's type `kind`, such as 'tensor(float)'."""
    element = runtime.element_type(kind)
    if 8 * math.prod(shape) > sys.maxsize:  # bytes; numpy's limit
        raise GraphScaleError(
            f"input {name!r} of shape {list(shape)} has more numbers than fit into memory; give "
            "smaller sizes (--input-size, --batch)"
        )
    if element in (np.float16, np.float32, np.float64):
        return generator.standard_normal(shape).astype(element)
    if element in (np.int8, np.uint8):  # images
        return generator.integers(0, 128, shape).astype(element)
    if element == np.bool_:
        return np.ones(shape, element)
    if element == np.object_:  # texts
        return np.full(shape, "", element)
    if element is not None and np.issubdtype(element, np.integer):
        return np.zeros(shape, element)  # often indices, of which 0 is always valid
    raise GraphScaleError(
        f"input {name!r} has the type {kind}, for which there are no synthetic inputs; "
        "give the model an input of float32 or float16"
    )
