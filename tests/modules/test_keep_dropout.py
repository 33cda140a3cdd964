"""Layers that are random in training become Dropout nodes, or are named as lost."""

import onnx_ir as ir
import pytest
import torch
from torch import nn

from graphscale.convert.operators.normalization import DROPS
from graphscale.modules.example import Example
from graphscale.modules.keep_dropout import dropped_layers, lost_layers, mark_dropout
from graphscale.modules.trace_module import trace_module


class DropPath(nn.Module):
    """As timm's."""

    def __init__(self, drop_prob: float, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class StochasticDepth(nn.Module):
    """As torchvision's."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("layer", "probability", "kind"),
    [
        (nn.Dropout(0.25), 0.25, "element"),
        (nn.Dropout2d(0.5), 0.5, "channel"),
        (DropPath(0.1), 0.1, "image"),
        (StochasticDepth(0.2, "row"), 0.2, "image"),
    ],
)
def test_layers_that_are_kept(layer: nn.Module, probability: float, kind: str) -> None:
    assert dropped_layers(nn.Sequential(layer)) == {layer: (probability, kind)}
    assert lost_layers(nn.Sequential(layer)) == []


@pytest.mark.parametrize(
    "layer", [nn.AlphaDropout(0.5), DropPath(0.1, False), StochasticDepth(0.2, "batch")]
)
def test_layers_that_cannot_be_kept_are_named(layer: nn.Module) -> None:
    """A Dropout node drops independently, scales what is left, and puts zeros."""
    module = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    assert dropped_layers(module) == {}
    assert lost_layers(module) == ["1.0"]


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), DropPath(0.0), StochasticDepth(0.0, "batch")])
def test_layers_that_drop_nothing_are_neither(layer: nn.Module) -> None:
    assert dropped_layers(nn.Sequential(layer)) == {}
    assert lost_layers(nn.Sequential(layer)) == []


def test_marks_become_dropout_nodes_behind_their_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(0.25), nn.ReLU(), DropPath(0.5)).eval()
    model = trace_module(module, Example(torch.zeros(1, 3, 4, 4)), keep_dropout=True)
    assert [node.op_type for node in model.graph] == ["Conv", "Dropout", "Relu", "Dropout"]
    dropouts = [node for node in model.graph if node.op_type == "Dropout"]
    ratios = [node.inputs[1].const_value.numpy().item() for node in dropouts]
    assert ratios == [0.25, 0.5]
    assert [node.metadata_props[DROPS] for node in dropouts] == ["channel", "image"]
    assert all(node.domain == "" and not node.attributes for node in dropouts)
    assert not any(layer._forward_hooks for layer in module.modules())
    ir.to_proto(model)
    plain = trace_module(module, Example(torch.zeros(1, 3, 4, 4)))
    assert [node.op_type for node in plain.graph] == ["Conv", "Relu"]


def test_handles_remove_the_marks() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Identity(), nn.Dropout(0.25))
    marks = mark_dropout(module)
    assert len(marks) == 2
    for mark in marks:
        mark.remove()
    assert not any(layer._forward_hooks for layer in module)
