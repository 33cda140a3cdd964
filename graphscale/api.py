"""`graphscale.plan`, `shrink` and `grow`, for every kind of model.

In: the path of an ONNX file, an onnx.ModelProto, an onnx-ir model or a torch module. Each function
calls `graphscale.rescaling` for ONNX models and `graphscale.modules` for torch modules, and returns
the kind that it was given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import onnx
import onnx_ir as ir

from graphscale.core.arguments import instance
from graphscale.core.errors import GraphScaleError, about
from graphscale.core.kernel_sizes import KernelTable
from graphscale.core.model_files import ModelLike, load_model, to_proto
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
    """The plan by which `shrink` would shrink a model; no weight is read or changed.

    Args:
        model: As for `shrink`; a torch module may be on the meta device.
        example_input: As for `shrink`, for a torch module.
        input_size, kernels, keep: As for `shrink`.

    Returns:
        The plan: each layer's kernels, sizes and multiplications, and how each weight is resized.
        `plan(...).image_size` is (height, width) of the images that the pre-train network takes.

    Raises:
        GraphScaleError: the model cannot be read or rescaled; says what to do.

    Example:
        >>> plan = graphscale.plan("model.onnx", kernels={3: 3})                  # doctest: +SKIP
        >>> plan.image_size, plan.multiplications()["ratio"]                      # doctest: +SKIP
        ((160, 160), 2.2)
    """
    if _is_module(model):
        from graphscale.modules.shrink import plan_module

        return plan_module(model, example_input, input_size=input_size, kernels=kernels, keep=keep)
    _check_no_example(example_input)
    with about(model):
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
        model: The target: a path, an onnx.ModelProto, an onnx-ir model, or a torch module together
            with `example_input`. It is not changed.
        example_input: Arguments of the torch module at the target's size: a tensor, a tuple of
            arguments or a dict of keyword arguments.
        input_size: Height and width of the pre-train network's images, or 'target:pretrain'. For a
            model whose own size is symbolic, a single size is the target's. By default the ratio of
            the first convolution's kernels decides.
        kernels: Target kernel size -> pre-train kernel size; other sizes follow the paper's table.
        keep: Names of nodes or weights whose kernels keep their sizes; * and ? match as in file
            names.
        init: 'resize' makes the weights from the target's, 'fresh' draws the resized layers'
            weights; by default they are resized if the target looks trained.
        seed: For fresh weights.

    Returns:
        The pre-train network with its plan: an onnx-ir model for an onnx-ir model, a torch module
        for a torch module, otherwise an onnx.ModelProto. Models carry the plan in their metadata,
        modules as the attribute `graphscale_plan`; `graphscale_plan.image_size` is the size of the
        images to train on.

    Raises:
        GraphScaleError: the model cannot be read or rescaled; says what to do.

    Example:
        >>> import graphscale, torch
        >>> target = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 7, padding=3), torch.nn.ReLU())
        >>> pretrain = graphscale.shrink(target, torch.zeros(1, 3, 64, 64))
        >>> pretrain[0].kernel_size, pretrain.graphscale_plan.image_size
        ((5, 5), (46, 46))
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
    _check_no_example(example_input)
    with about(model):
        pretrain, _ = shrink_model(
            load_model(model),
            input_size=input_size,
            kernels=kernels,
            keep=keep,
            init="auto" if init is None else init,
            seed=seed,
            copy=False,
        )
        return pretrain if isinstance(model, ir.Model) else to_proto(pretrain)


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
    """Grow a trained pre-train network into the target (Eq. 5 of arXiv 1610.03623).

    Args:
        checkpoint: The trained pre-train network, of any kind that `shrink` takes; or the state
            dict of a pre-train module, also inside a trainer's checkpoint, together with `target`.
        plan: The plan, or the file that `graphscale shrink` wrote, if the checkpoint has lost its
            own.
        target: The target network, if there is no plan, or for a state dict.
        resize: 'bilinear' (half-pixel centres), 'bicubic', 'nearest' or 'align-corners'.

    Returns:
        The target with the grown weights, of the same kind as `checkpoint`: the target's graph,
        node for node, or a module of the target's class. A state dict gives a torch module.

    Raises:
        GraphScaleError: there is no plan, or the checkpoint is of another network; names the
            weights that do not fit.

    Example:
        >>> grown = graphscale.grow("checkpoint.onnx")                            # doctest: +SKIP
        >>> onnx.save(grown, "grown.onnx")                                        # doctest: +SKIP
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
    wanted = "a model of the target network, or its path"
    instance("target", target, str | os.PathLike | onnx.ModelProto | ir.Model | None, wanted)
    with about(checkpoint, plan, target):
        grown, _, _ = grow_model(load_model(checkpoint), plan=plan, target=target, resize=resize)
        return grown if isinstance(checkpoint, ir.Model) else to_proto(grown)


def _check_no_example(example_input: object) -> None:
    """Raise for an example of an ONNX model's input, which some take for its size."""
    if example_input is not None:
        raise GraphScaleError(
            "example_input is for torch modules; leave it out for an ONNX model, and give sizes as "
            "input_size"
        )


def _is_module(model: ModelLike | torch.nn.Module | None) -> TypeIs[torch.nn.Module]:
    """Whether `model` is a torch module; found out without importing torch."""
    return any(base.__module__.startswith("torch.nn.modules") for base in type(model).__mro__)
