"""Run what shrink or grow made once in onnxruntime before it is written.

In go the new network and the file of the network that it was made from. A network that does not run
although that one does is an error: a size that was overlooked shows here and not in somebody's
training.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from graphscale.core.plan import Plan
from graphscale.core.requirements import MissingPackageError, onnxruntime_for
from graphscale.core.runtime import element_type, open_model, quiet_options, session
from graphscale.rescaling.input_size import InputSize, Size, has_fixed_size, input_shapes

if TYPE_CHECKING:
    import onnxruntime

# Bytes of resized weights up to which these are computed for the run, and kept for whoever writes
# the network. Where there are more, zeros stand for them, which take neither memory nor time.
_COMPUTED = 1 << 26
# What onnxruntime says where memory, and not the model, is the reason.
_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")


def check_runs(pretrain: ir.Model, target: str | os.PathLike[str], input_size: Size) -> None:
    """Run a pre-train network on zeros.

    Nothing is checked where the runtime, and not the network, is the reason: without onnxruntime,
    without enough memory, or with an operator that it lacks and that the target has, too.

    Args:
        pretrain: The pre-train network.
        target: The target's file, which is run in the same way where `pretrain` does not run.
        input_size: As for `shrink_model`.

    Raises:
        GraphScaleError: `pretrain` does not run, but `target` does.
    """
    if (reason := _failure(pretrain, {})) is None:
        return
    model = load_model(target)
    shapes = input_shapes(model, InputSize.parse(input_size, has_fixed_size(model)))
    if _failure(target, shapes) is None:
        raise GraphScaleError(
            f"{target}: its pre-train network would not run in onnxruntime, as the target does "
            f"({reason}); give another --input-size, or --keep what the message names, and report "
            "this as a fault of graphscale"
        )


def check_grown_runs(grown: ir.Model, checkpoint: str | os.PathLike[str], plan: Plan) -> None:
    """Run a grown network on zeros; what `check_runs` does not check is not checked here.

    Args:
        grown: The grown network.
        checkpoint: The pre-train network's file, which is run in the same way where `grown` does
            not run.
        plan: The plan that growth has followed.

    Raises:
        GraphScaleError: `grown` does not run, but `checkpoint` does.
    """
    if (reason := _failure(grown, {each.name: each.shape for each in plan.inputs})) is None:
        return
    if _failure(checkpoint, {each.name: each.pretrain for each in plan.inputs}) is None:
        raise GraphScaleError(
            f"{checkpoint}: the grown network would not run in onnxruntime, as the checkpoint does "
            f"({reason}); shrink the target again with another --input-size, or with --keep what "
            "the message names, and report this as a fault of graphscale"
        )


def _failure(
    model: ir.Model | str | os.PathLike[str], shapes: Mapping[str, Sequence[int | str]]
) -> str | None:
    """Why a model does not run on zeros; None where it does, or where nothing can be said."""
    try:
        onnxruntime = onnxruntime_for("a check")
    except MissingPackageError:
        return None
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # for a single run
    given = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
    weights = _resized_weights(model) if isinstance(model, ir.Model) else contextlib.nullcontext()
    with weights:
        try:
            opened = (open_model if isinstance(model, ir.Model) else session)(model, **given)
            _run(opened, shapes)
        except MemoryError:
            return None
        except Exception as error:  # onnxruntime's have no type in common
            text = " ".join(str(error).split())
            return None if any(each in text for each in _NO_MEMORY) else text[-200:]
    return None


def _run(opened: onnxruntime.InferenceSession, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Run an open model on zeros; sizes that it leaves open are those of `shapes`, or 1."""
    fed = {}
    for each in opened.get_inputs():
        given = shapes.get(each.name, [1] * len(each.shape))
        pairs = [(own, wanted, 1) for wanted, own in zip(given, each.shape)]
        sizes = [next(size for size in pair if isinstance(size, int)) for pair in pairs]
        fed[each.name] = np.zeros(sizes, element_type(each.type))
    opened.run(None, fed)


@contextlib.contextmanager
def _resized_weights(model: ir.Model) -> Iterator[None]:
    """Let the weights that are resized when they are read be computed, or zeros, in the block."""
    values = model.graph.initializers.values()
    lazy = {
        each: each.const_value for each in values if isinstance(each.const_value, ir.LazyTensor)
    }
    few = sum(tensor.nbytes for tensor in lazy.values()) <= _COMPUTED
    for value, tensor in lazy.items():
        if few or not tensor.dtype.is_floating_point():  # integers may be indices
            array = tensor.numpy()
        else:
            array = np.zeros(tensor.shape.numpy(), tensor.dtype.numpy())
        value.const_value = ir.Tensor(array, tensor.dtype, name=tensor.name)
    try:
        yield
    finally:
        if not few:
            for value, tensor in lazy.items():
                value.const_value = tensor
