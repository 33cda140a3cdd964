"""plan, shrink and grow a model given as a path, as ONNX in memory or as a torch module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import onnx
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import KernelTable
from graphscale.core.model_files import ModelLike, load_model
from graphscale.core.plan import Plan
from graphscale.rescaling.grow import grow_model
from graphscale.rescaling.input_size import Size
from graphscale.rescaling.plan import plan_model
from graphscale.rescaling.shrink import shrink_model

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs


def plan(
    model: ModelLike | torch.nn.Module,
    example_input: Any = None,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
) -> Plan:
    """What `shrink` would do to a model, without its weights being touched.

    Arguments and errors as for `shrink`; a torch module may be on the meta device.
    `plan(...).image_size` is the size of the images that the pre-train network takes.
    """
    if _is_module(model):
        from graphscale.modules.shrink import plan_module

        return plan_module(model, example_input, input_size=input_size, kernels=kernels, keep=keep)
    return plan_model(  # load_model has made or copied the graph: no other copy is needed
        load_model(model), input_size=input_size, kernels=kernels, keep=keep, copy=False
    )


@overload
def shrink(
    model: str | os.PathLike | onnx.ModelProto,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> onnx.ModelProto: ...


@overload
def shrink(
    model: ir.Model,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> ir.Model: ...


@overload
def shrink(
    model: torch.nn.Module,
    example_input: Any = None,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> torch.nn.Module: ...


def shrink(
    model: ModelLike | torch.nn.Module,
    example_input: Any = None,
    *,
    input_size: Size = None,
    kernels: KernelTable | None = None,
    keep: Sequence[str] = (),
    init: str | None = None,
    seed: int = 0,
) -> onnx.ModelProto | ir.Model | torch.nn.Module:
    """Derive the pre-train network of a target network (arXiv 1610.03623).

    Args:
        model: A path, an onnx.ModelProto, an onnx-ir model, or a torch module together with
            `example_input`.
        input_size: Pre-train height and width, or 'target:pretrain'; of a model whose own size is
            symbolic, the target's. By default the first convolution's ratio decides.
        kernels: Target kernel size -> pre-train size, before the paper's table.
        keep: Patterns of node or weight names whose kernels are left alone.
        init: 'resize' the target's weights or draw 'fresh' ones; by default resized where the
            target is trained.
        seed: Of the fresh weights.

    Returns:
        The pre-train network with its plan: an onnx-ir model for an onnx-ir model, a torch module
        for a torch module, else an onnx.ModelProto. Models have the plan in their metadata, modules
        as `graphscale_plan`; `graphscale_plan.image_size` is the size of the images to train on.

    Raises:
        GraphScaleError: the model cannot be read or rescaled; says what to do.
    """
    if _is_module(model):
        from graphscale.modules.shrink import shrink_module

        return shrink_module(
            model,
            example_input,
            input_size=input_size,
            kernels=kernels,
            keep=keep,
            init=init,
            seed=seed,
        )
    pretrain, _ = shrink_model(
        load_model(model),
        input_size=input_size,
        kernels=kernels,
        keep=keep,
        init=init or "auto",
        seed=seed,
        copy=False,
    )
    return pretrain if isinstance(model, ir.Model) else ir.to_proto(pretrain)


@overload
def grow(
    checkpoint: str | os.PathLike | onnx.ModelProto,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | None = None,
    resize: str = "bilinear",
) -> onnx.ModelProto: ...


@overload
def grow(
    checkpoint: ir.Model,
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | None = None,
    resize: str = "bilinear",
) -> ir.Model: ...


@overload
def grow(
    checkpoint: torch.nn.Module | Mapping[str, Any],
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | torch.nn.Module | None = None,
    resize: str = "bilinear",
) -> torch.nn.Module: ...


def grow(
    checkpoint: ModelLike | torch.nn.Module | Mapping[str, Any],
    *,
    plan: Plan | str | os.PathLike | None = None,
    target: ModelLike | torch.nn.Module | None = None,
    resize: str = "bilinear",
) -> onnx.ModelProto | ir.Model | torch.nn.Module:
    """Carry the weights of a trained pre-train network back into the target (Eq. 5).

    Args:
        checkpoint: The pre-train network, as `shrink` takes models; or the state dict of a
            pre-train module, also inside a trainer's checkpoint, together with `target`.
        plan: The plan, or the file that shrink wrote, where the checkpoint has lost its own.
        target: The target network, where neither has a plan.
        resize: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.

    Returns:
        The target's graph, node for node, with the grown weights; of the same kind as `checkpoint`.

    Raises:
        GraphScaleError: the checkpoint is of another network; names the weights.
    """
    if isinstance(checkpoint, Mapping):
        from graphscale.modules.grow_state_dict import grow_state_dict

        return grow_state_dict(checkpoint, plan=plan, target=target, resize=resize)
    if _is_module(checkpoint):
        from graphscale.modules.grow import grow_module

        return grow_module(checkpoint, plan=plan, target=target, resize=resize)
    if _is_module(target):
        raise GraphScaleError(
            "the target is a torch module and the checkpoint is an ONNX model; give the target's "
            "ONNX file, or grow the module that was trained"
        )
    grown, _, _ = grow_model(load_model(checkpoint), plan=plan, target=target, resize=resize)
    return grown if isinstance(checkpoint, ir.Model) else ir.to_proto(grown)


def _is_module(model: ModelLike | torch.nn.Module | None) -> TypeIs[torch.nn.Module]:
    return any(base.__module__.startswith("torch.nn.modules") for base in type(model).__mro__)
