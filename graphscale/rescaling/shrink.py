"""Shrink a target network.

In go the target network and the user's wishes; out come the pre-train network with its weights,
which are the target's resized or fresh ones, and the plan that leads back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graphscale.core.arguments import texts, whole_number
from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable, kernel_table
from graphscale.core.plan import Plan
from graphscale.passes.shrink.initialize import initialize, is_trained
from graphscale.rescaling.check_numbers import check_numbers
from graphscale.rescaling.input_size import Size
from graphscale.rescaling.plan import derive, prepare

INITIALIZATIONS = ("auto", "resize", "fresh")


def check_initialization(init: object, seed: object) -> None:
    """Raise for an unknown way to make weights, or a seed that is none.

    Raises:
        GraphScaleError: names the argument.
    """
    if not isinstance(init, str) or init not in INITIALIZATIONS:
        raise GraphScaleError(f"unknown initialisation {init!r}; use resize or fresh")
    whole_number("seed", seed, 0, math.inf)


def shrink_model(
    model: ir.Model,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str = "auto",
    seed: int = 0,
    copy: bool = True,
    scale_windows: bool = True,
) -> tuple[ir.Model, Plan]:
    """Make the pre-train network of `model`, and the plan that leads back.

    Args:
        model: The target network.
        input_size: Pre-train height and width, or 'target:pretrain' (see `InputSize.parse`).
        kernels: Target kernel size -> pre-train size, before the paper's table.
        keep: Patterns of node or weight names whose kernels are left alone.
        init: 'resize' the target's weights or draw 'fresh' ones; 'auto' resizes where the target is
            trained.
        seed: Of the fresh weights.
        copy: Leave `model` as it is. Without, it becomes the pre-train network.
        scale_windows: Let the windows that maps are cut into become smaller where their size does
            not divide the maps'.

    Returns:
        The pre-train network, which carries the plan in its metadata, and the plan.

    Raises:
        GraphScaleError: the model cannot be rescaled, or a weight holds NaN; says what to do.
    """
    kernels, keep = kernel_table(kernels), texts("keep", keep)
    check_initialization(init, seed)
    target = prepare(model, input_size, copy)
    check_numbers(target.model)
    untrained = init == "auto" and not is_trained(target.model)
    pretrain, plan = derive(target, kernels, keep, scale_windows)
    plan.init = "fresh" if init == "fresh" or untrained else "resize"
    if plan.init == "fresh":
        # Of an untrained target, the weights that keep their shape keep their initial numbers, too.
        names = None if init == "fresh" else {weight.name for weight in plan.weights}
        initialize(pretrain, names, seed)
    plan.attach(pretrain)
    return pretrain, plan
