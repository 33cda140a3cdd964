"""Two modules are compared on random weights: equal, different, of another shape, not running."""

import pytest
import torch
from torch import nn

from graphscale.modules.example import Example
from graphscale.modules.why_outputs_differ import why_outputs_differ

EXAMPLE = Example(torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3)))


class Scaled(nn.Module):
    """A branch whose scale is still zero, as at the start of a training."""

    def __init__(self, padding: int = 1, detail: object = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=padding)
        self.scale = nn.Parameter(torch.zeros(3, 1, 1))
        self.detail = detail

    def forward(self, x: torch.Tensor) -> object:
        y = x[..., :4, :4] + self.scale * self.conv(x)[..., :4, :4]
        return y if self.detail is None else self.detail(y)


def test_equal_functions_with_other_weights() -> None:
    """The weights are drawn: those that the modules have play no part, and stay."""
    module, reference = Scaled(), Scaled()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert why_outputs_differ(module, reference, EXAMPLE) is None
    assert module.training
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items())


def test_a_difference_behind_a_zero_scale_is_seen() -> None:
    """Both modules give x itself with the weights that they have."""
    module, reference = Scaled(padding=0), Scaled(padding=1)
    assert torch.equal(module(EXAMPLE.args[0]), reference(EXAMPLE.args[0]))
    reason = why_outputs_differ(module, reference, EXAMPLE)
    assert reason == "its outputs are not the planned network's"


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        (lambda y: y[:, :2], "its outputs have other shapes than the planned network's"),
        (lambda y: (y, y), "its outputs have other shapes than the planned network's"),
        (lambda y: y + 1e-3, "its outputs are not the planned network's"),
        (lambda y: y * float("nan"), "its outputs are not the planned network's"),
        (lambda y: y.view(5, 7), "its forward does not run at the pre-train size (shape "),
    ],
)
def test_reasons(detail: object, reason: str) -> None:
    assert why_outputs_differ(Scaled(detail=detail), Scaled(), EXAMPLE).startswith(reason)


def test_integer_outputs_must_be_equal() -> None:
    def positive(y: torch.Tensor) -> torch.Tensor:
        return (y > 0).long()

    assert why_outputs_differ(Scaled(detail=positive), Scaled(detail=positive), EXAMPLE) is None
    other = Scaled(detail=lambda y: positive(y) + 1)
    assert why_outputs_differ(other, Scaled(detail=positive), EXAMPLE) is not None


def test_rounding_that_float32_amplifies_is_no_difference() -> None:
    """(y + 3e5) - 3e5 loses y's last digits in float32; in float64 it is y."""
    rounded = Scaled(detail=lambda y: (y + 3e5) - 3e5)
    assert why_outputs_differ(rounded, Scaled(), EXAMPLE) is None


def test_arguments_by_name_are_given_to_the_reference_in_order() -> None:
    class Named(nn.Module):
        def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> dict:
            return {"difference": left - right}

    class Planned(nn.Module):
        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return one - other

    example = Example({"left": torch.rand(2, 3), "right": torch.rand(2, 3)})
    assert why_outputs_differ(Named(), Planned(), example) is None
    turned = Example({"right": torch.rand(2, 3), "left": torch.rand(2, 3)})
    assert why_outputs_differ(Named(), Planned(), turned) is not None


class Gained(nn.Module):
    """The gains of a standardised kernel, which no network has below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(64, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert (self.gain > 0).all()
        return x * self.gain.sum()


def test_gains_with_further_dimensions_are_drawn_near_one() -> None:
    assert why_outputs_differ(Gained(), Gained(), EXAMPLE) is None
