"""Shapes alone tell how kernels are resized, and interfaces where one size of the maps fits.

All else is refused by name.
"""

import pytest
import torch
from torch import nn

import graphscale
from graphscale import GraphScaleError
from graphscale.core.plan import WeightPlan
from graphscale.modules.weight_plans_from_shapes import weight_plans_from_shapes


def target() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10), nn.Linear(10, 2)
    )


def pretrain(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The target's tensors, of which some have other shapes; underscores stand for dots."""
    own = dict(target().state_dict())
    return own | {name.replace("_", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_a_kernel_and_the_interface_behind_it() -> None:
    given = pretrain(**{"0_weight": (8, 3, 5, 5), "3_weight": (10, 8 * 3 * 3)})
    assert weight_plans_from_shapes(given, target()) == [
        WeightPlan("0.weight", "kernel", [[(8, 8)], [(3, 3)], [(7, 5)], [(7, 5)]]),
        WeightPlan("3.weight", "interface", [[(10, 10)], [(8, 8), (4, 3), (4, 3)]]),
    ]


def test_equal_shapes_and_missing_weights_need_no_plan() -> None:
    given = pretrain()
    del given["4.bias"]
    assert weight_plans_from_shapes(given, target()) == []


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 4, 5), nn.ConvTranspose3d(2, 4, 5)])
def test_any_number_of_axes(layer: nn.Module) -> None:
    (found,) = weight_plans_from_shapes({"weight": layer.weight[..., 1:4]}, layer)
    assert found.target_shape == list(layer.weight.shape)
    assert found.pretrain_shape[-1] == 3
    assert found.name == "weight"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("0_weight", (4, 3, 5, 5)),  # fewer channels
        ("3_weight", (10, 8 * 3 * 4)),  # 3×4 is no square
        ("3_weight", (10, 8 * 9 + 1)),  # no multiple of the channels
        ("3_weight", (5, 8 * 3 * 3)),  # fewer outputs
        ("3_bias", (9,)),
    ],
)
def test_shapes_that_explain_nothing(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphScaleError, match=f"{name.replace('_', '.')}.*give the plan"):
        weight_plans_from_shapes(pretrain(**{name: shape}), target())


@pytest.mark.parametrize(("large", "small"), [((8, 32), (6, 24)), ((6, 6), (4, 4))])
def test_maps_of_several_sizes_fit(large: tuple[int, int], small: tuple[int, int]) -> None:
    """256 and 144 pixels are 16×16 and 12×12, too; 36 and 16 pixels are 3×12 and 2×8."""

    def network(height: int, width: int) -> nn.Module:
        conv = nn.Conv2d(1, 4, 3, padding=1)
        return nn.Sequential(conv, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * height * width, 2))

    module = network(*large)
    example = torch.zeros(1, 1, *(4 * side for side in large))
    options = {"input_size": tuple(4 * side for side in small), "kernels": {3: 3}}
    shrunk = graphscale.shrink(module, example, init="resize", **options)
    plain = dict(shrunk.state_dict())
    with pytest.raises(GraphScaleError, match=r"'3.weight'.*which may be .*16×16|6×6") as error:
        graphscale.grow(plain, target=module)
    assert "graphscale.plan(target, example_input)" in str(error.value)
    plan = graphscale.plan(module, example, **options)
    grown = graphscale.grow(plain, target=module, plan=plan)
    assert torch.equal(grown[3].weight, graphscale.grow(shrunk)[3].weight)


def test_an_interface_behind_a_convolution_of_one_axis() -> None:
    """16 samples become 9, which are no squares."""
    module = nn.Sequential(nn.Conv1d(1, 4, 5), nn.Flatten(), nn.Linear(4 * 16, 2))
    given = dict(module.state_dict()) | {"2.weight": torch.zeros(2, 4 * 9)}
    (found,) = weight_plans_from_shapes(given, module)
    assert found.factors == [[(2, 2)], [(4, 4), (16, 9)]]


def test_an_interface_without_a_convolution_before_it() -> None:
    layer = nn.Linear(16, 2)
    with pytest.raises(GraphScaleError, match=r"weight.*\[2, 9\].*give the plan"):
        weight_plans_from_shapes({"weight": torch.zeros(2, 9)}, layer)
