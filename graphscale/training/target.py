"""Read the target network of `graphscale train`.

In: the path of an ONNX file, or the name of a function that makes a torch module. Out: the module
and an example input, after a check that it classifies images into the right number of classes.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from graphscale.convert.lost_for_training import lost_for_training
from graphscale.core.errors import GraphScaleError


@dataclass(frozen=True)
class Target:
    """A network to train.

    Attributes:
        network: The module; for an ONNX file, the one that `graphscale.load` returned.
        example: A float32 tensor (1, C, H, W) of its input's size.
        from_onnx: Whether it came from an ONNX file; then the weights are saved into that graph.
        hints: Signs that the file's exporter dropped what training needs, such as Dropout.
    """

    network: nn.Module
    example: torch.Tensor
    from_onnx: bool
    hints: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of its input."""
        return self.example.shape[1]


def read_target(
    model: str, classes: int, image_size: tuple[int, int] | None = None, channels: int = 3
) -> Target:
    """The target that `model` names.

    Args:
        model: Path of an ONNX file, or 'module:callable'. The callable returns a torch module; it
            is called with num_classes if it has such a parameter.
        classes: Number of classes of the images.
        image_size: Height and width; needed for a callable, and for a file that leaves them open.
        channels: Channels of the input, for a callable; a file states them itself.

    Raises:
        GraphScaleError: there is no such file or callable, the network does not take one tensor of
            images, or it has another number of classes.
    """
    if ":" in model and not Path(model).exists():
        target = _from_callable(model, classes, image_size, channels)
    else:
        target = _from_file(model, image_size)
    _check_classes(target, model, classes)
    return target


def _from_file(model: str, image_size: tuple[int, int] | None) -> Target:
    import graphscale
    from graphscale.core.model_files import load_model

    inputs = [value for value in load_model(model).graph.inputs if not value.is_initializer()]
    shape = list(inputs[0].shape) if len(inputs) == 1 and inputs[0].shape is not None else []
    if len(shape) != 4 or not isinstance(shape[1], int):
        raise GraphScaleError(
            f"{model}: training needs one input of N×C×H×W images, this model has "
            f"{', '.join(f'{each.name} {each.shape}' for each in inputs)}; write a training loop "
            "with graphscale.load and graphscale.grow_ instead"
        )
    for axis, size in enumerate(shape[2:]):
        if isinstance(size, int):
            if image_size is not None and image_size[axis] != size:
                raise GraphScaleError(
                    f"{model}: takes images of {shape[2]}×{shape[3]}, not of --image-size "
                    f"{image_size[0]}×{image_size[1]}; leave --image-size out, or export the model "
                    "at that size"
                )
        elif image_size is None:
            raise GraphScaleError(f"{model}: leaves its image size open; give it with --image-size")
        else:
            shape[2 + axis] = image_size[axis]
    network = graphscale.load(model, input_size=image_size)
    hints = tuple(lost_for_training(model))
    return Target(network, torch.zeros(1, *shape[1:]), from_onnx=True, hints=hints)


def _from_callable(
    name: str, classes: int, image_size: tuple[int, int] | None, channels: int
) -> Target:
    module_name, _, function_name = name.partition(":")
    if image_size is None:
        raise GraphScaleError(f"{name}: give the size of its images with --image-size, as in 224")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a file in the working directory, as `python -m` finds it
    try:
        function = importlib.import_module(module_name)
        for part in function_name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise GraphScaleError(
            f"{name}: cannot be imported ({error}); give an ONNX file or module:callable"
        ) from None
    except Exception as error:
        raise _failed(name, "cannot be imported", error) from error
    if not callable(function):
        raise GraphScaleError(
            f"{name}: is {type(function).__name__}, not a function; give one that returns a network"
        )
    try:
        takes = inspect.signature(function).parameters
        network = function(num_classes=classes) if "num_classes" in takes else function()
    except Exception as error:
        raise _failed(name, "makes no network", error) from error
    if not isinstance(network, nn.Module):
        raise GraphScaleError(
            f"{name}: returned {type(network).__name__}, which is no torch module; give a function "
            "that returns one"
        )
    return Target(network, torch.zeros(1, channels, *image_size), from_onnx=False)


def _failed(name: str, what: str, error: Exception) -> GraphScaleError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GraphScaleError(f"{name}: {what} ({reason}); mend it, --verbose says where it fails")


def _check_classes(target: Target, model: str, classes: int) -> None:
    network = target.network
    training = network.training
    try:
        with torch.no_grad():
            scores = network.eval()(target.example)
    except Exception as error:
        raise GraphScaleError(
            f"{model}: does not run on images of shape {list(target.example.shape)} "
            f"({' '.join(str(error).split())[:200]}); give another --image-size or --channels"
        ) from None
    finally:
        network.train(training)
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2:
        raise GraphScaleError(
            f"{model}: training needs a network with one output, N×classes; cut the others off"
        )
    if scores.shape[1] != classes:
        raise GraphScaleError(
            f"{model}: has {scores.shape[1]} classes and the folder {classes}; give a network with "
            f"{classes} outputs, or a callable that takes num_classes"
        )
