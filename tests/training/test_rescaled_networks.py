"""The network of each stage of a recipe, and growth from stage to stage."""

import copy

import pytest
import torch
from torch import nn

import graphscale
from graphscale.training.recipes import Recipe, RecipeStage
from graphscale.training.rescaled_networks import RescaledNetworks

EXAMPLE = torch.zeros(1, 3, 32, 24)
RECIPE = Recipe(
    "three",
    (
        RecipeStage(0.3, scale=0.5),
        RecipeStage(0.6, kernels={5: 5}, scale=0.75),
        RecipeStage(1.0, target=True),
    ),
)


@pytest.fixture(scope="module")
def target() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.fixture(scope="module")
def networks(target: nn.Module) -> RescaledNetworks:
    return RescaledNetworks(target, EXAMPLE, RECIPE)


def test_sizes_are_shares_of_the_targets(networks: RescaledNetworks) -> None:
    assert [networks.size(stage) for stage in range(3)] == [(16, 12), (24, 18), (32, 24)]


def test_the_target_stage_is_a_copy(networks: RescaledNetworks, target: nn.Module) -> None:
    first = networks.first(2)
    assert first is not target
    assert first[0].weight is not target[0].weight
    assert torch.equal(first[0].weight, target[0].weight)


def test_growth_in_place_through_all_stages(networks: RescaledNetworks, target: nn.Module) -> None:
    network = networks.first(0)
    assert network[0].kernel_size == (3, 3)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 3, 16, 12)).sum().backward()
    optimizer.step()
    expected = graphscale.grow(network)
    second = networks.grow(network, 0, optimizer)
    assert second is network
    assert second[0].kernel_size == (5, 5)
    assert optimizer.state[second[0].weight]["momentum_buffer"].shape == (4, 3, 5, 5)
    assert second.graphscale_plan.inputs[0].pretrain[2:] == [24, 18]
    torch.testing.assert_close(second[0].weight, expected[0].weight)
    third = networks.grow(second, 1, optimizer)
    assert third is network
    assert repr(third) == repr(target)
    assert not hasattr(third, "graphscale_plan")


@pytest.mark.filterwarnings("ignore:Fixed")
def test_an_imported_graph_is_grown_to_the_target_and_shrunk_again() -> None:
    class Fixed(nn.Module):
        """Has a size of the target in its forward, so that it becomes an imported graph."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 5, padding=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).reshape(-1, 4, 32, 24).mean((2, 3))

    torch.manual_seed(0)
    target = Fixed()
    before = copy.deepcopy(target.state_dict())
    networks = RescaledNetworks(target, EXAMPLE, RECIPE)
    network = networks.first(0)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    expected = graphscale.grow(network)
    second = networks.grow(network, 0, optimizer)
    assert second is not network
    weight = second.state_dict()["conv.weight"]
    torch.testing.assert_close(weight, expected.state_dict()["conv.weight"])
    assert all(torch.equal(before[name], each) for name, each in target.state_dict().items())


def test_how_grow_treats_the_optimizer_can_be_chosen(target: nn.Module) -> None:
    networks = RescaledNetworks(target, EXAMPLE, RECIPE, optimizer_state="reset")
    network = networks.first(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 16, 12)).sum().backward()
    optimizer.step()
    networks.grow(network, 0, optimizer)
    assert optimizer.state[network[0].weight].get("momentum_buffer") is None
    assert optimizer.state[network[0].bias]["momentum_buffer"] is not None
