"""Run a pre-train network once in onnxruntime before it is written.

In go the pre-train network and the file of its target. A network that does not run although its
target does is an error: a size that shrinking overlooked shows here and not in somebody's training.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model, to_proto
from graphscale.core.runtime import session
from graphscale.rescaling.input_size import InputSize, Size, has_fixed_size, input_shapes

_LARGEST = 1 << 30  # bytes of weights; a second copy of larger ones may not fit into memory


def check_runs(pretrain: ir.Model, target: str | os.PathLike[str], input_size: Size) -> None:
    """Run `pretrain` on zeros; without onnxruntime, or with very large weights, do nothing.

    Args:
        pretrain: The pre-train network.
        target: The target's file, which is run in the same way where `pretrain` does not run.
        input_size: As for `shrink_model`.

    Raises:
        GraphScaleError: `pretrain` does not run, but `target` does.
    """
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        return
    tensors = (value.const_value for value in pretrain.graph.initializers.values())
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) > _LARGEST:
        return
    reason = _failure(to_proto(pretrain).SerializeToString(), {})
    if reason is None:
        return
    model = load_model(target)
    shapes = input_shapes(model, InputSize.parse(input_size, has_fixed_size(model)))
    if _failure(str(Path(target)), shapes) is None:
        raise GraphScaleError(
            f"{target}: its pre-train network would not run in onnxruntime, as the target does "
            f"({reason}); give another --input-size, or --keep what the message names, and report "
            "this as a fault of graphscale"
        )


def _failure(model: str | bytes, shapes: dict[str, list[int]]) -> str | None:
    """Why a model does not run on zeros; None where it does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told by an error of ours
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        opened = session(model, sess_options=options, providers=["CPUExecutionProvider"])
        fed = {}
        for each in opened.get_inputs():
            given = shapes.get(each.name, [1] * len(each.shape))
            sizes = [b if isinstance(b, int) else a for a, b in zip(given, each.shape)]
            fed[each.name] = np.zeros(sizes, _dtype(each.type))
        opened.run(None, fed)
    except Exception as error:  # onnxruntime's have no type in common
        return " ".join(str(error).split())[-200:]
    return None


def _dtype(text: str) -> np.dtype:
    """The numpy type of onnxruntime's name of a tensor type, such as 'tensor(float16)'."""
    return ir.DataType[text.removeprefix("tensor(").removesuffix(")").upper()].numpy()
