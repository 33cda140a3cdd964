"""Parts of a module that run only in training, such as the auxiliary classifiers of Inception.

A module is traced in evaluation mode, in which its graph lacks these parts. They must fit the
pre-train images, too. So a module of which parameters are missing in its graph is traced once more,
with the flag `training` set where a forward can ask for it, but not on layers: normalization and
dropout stay as they are in evaluation.
"""

from __future__ import annotations

import onnx_ir as ir
from torch import nn


def evaluation(module: nn.Module) -> nn.Module:
    """Put the module into evaluation mode; returns it."""
    return module.eval()


def with_training_parts(module: nn.Module) -> nn.Module:
    """Put layers into evaluation mode, and what is made of layers into training mode."""
    module.eval()
    for each in module.modules():
        each.training = next(each.children(), None) is not None
    return module


def lacks_parts(graph: ir.Graph, module: nn.Module) -> bool:
    """Whether a graph traced from the module misses parameters that the module has."""
    return any(name not in graph.initializers for name, _ in module.named_parameters())


def has_more(graph: ir.Graph, other: ir.Graph, module: nn.Module) -> bool:
    """Whether a graph has all of the module's parameters that another one has, and more."""
    names = {name for name, _ in module.named_parameters()}
    return names & set(graph.initializers) > names & set(other.initializers)
