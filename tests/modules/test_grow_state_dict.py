"""A checkpoint and a module of the target give what growing the pre-train module gives."""

import copy

import pytest
import torch
from torch import nn

import graphscale
from graphscale import GraphScaleError
from graphscale.core.resampling import growth_matrix
from graphscale.modules.grow_state_dict import grow_state_dict


class Net(nn.Module):
    def __init__(self, taps: int = 7, side: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, taps, padding=taps // 2)
        self.norm = nn.BatchNorm2d(2)
        self.linear = nn.Linear(2 * side * side, 3)


@pytest.fixture
def checkpoint() -> dict[str, torch.Tensor]:
    """Weights of a pre-train network without a plan: 5×5 taps, 3×3 maps."""
    torch.manual_seed(0)
    state = Net(5, 3).state_dict()
    state["norm.num_batches_tracked"] += 7
    return dict(state)


def expected_kernel(kernel: torch.Tensor) -> torch.Tensor:
    matrix = torch.from_numpy(growth_matrix(5, 7)).float()
    return torch.einsum("ocij,yi,xj->ocyx", kernel, matrix, matrix)


def test_grown_by_shapes_alone(checkpoint: dict) -> None:
    target = Net()
    before = copy.deepcopy(target.state_dict())
    grown = grow_state_dict(checkpoint, target=target)
    torch.testing.assert_close(grown.conv.weight, expected_kernel(checkpoint["conv.weight"]))
    assert grown.linear.weight.shape == (3, 2 * 4 * 4)
    assert torch.equal(grown.conv.bias, checkpoint["conv.bias"])
    assert grown.norm.num_batches_tracked.item() == 7
    assert all(torch.equal(before[name], each) for name, each in target.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "model.net."])
def test_a_prefix_and_a_trainers_dict(checkpoint: dict, prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in checkpoint.items()}
    grown = grow_state_dict({"epoch": 2, "state": wrapped}, target=nn.DataParallel(Net()))
    assert torch.equal(grown.conv.bias, checkpoint["conv.bias"])


def test_a_type_of_the_target(checkpoint: dict) -> None:
    grown = grow_state_dict(checkpoint, target=Net().half())
    assert grown.conv.weight.dtype == torch.float16


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("linear.bias"), "holds no state dict with the target's weights"),
        (lambda c: c.update(extra=torch.zeros(2)), "has besides the target's keys 'extra'"),
        (lambda c: c.clear(), "holds no state dict"),
        (
            lambda c: c.update({"conv.weight": c["conv.weight"].to_sparse()}),
            "'conv.weight' is a sparse tensor",
        ),
        (
            lambda c: c.update({"conv.weight": c["conv.weight"].to("meta")}),
            "'conv.weight' is a meta tensor",
        ),
        (
            lambda c: c.update({"conv.weight": c["conv.weight"].to(torch.complex64)}),
            "'conv.weight' is a complex tensor",
        ),
    ],
)
def test_another_network_is_refused(checkpoint: dict, change, sentence: str) -> None:
    change(checkpoint)
    with pytest.raises(GraphScaleError, match=sentence):
        grow_state_dict(checkpoint, target=Net())


def test_two_networks_are_ambiguous(checkpoint: dict) -> None:
    both = {"student": checkpoint, "teacher": dict(checkpoint)}
    with pytest.raises(GraphScaleError, match=r"\['student'\], \['teacher'\]; give one"):
        grow_state_dict(both, target=Net())


def test_without_a_target() -> None:
    with pytest.raises(GraphScaleError, match="give a module of the target network"):
        grow_state_dict({}, target=None)


def test_where_shapes_do_not_explain_it_the_error_says_where_the_plan_went(
    checkpoint: dict,
) -> None:
    checkpoint["linear.weight"] = torch.zeros(3, 2 * 3 * 2)
    with pytest.raises(GraphScaleError, match=r"linear\.weight.*has lost its plan.*plan\.save"):
        grow_state_dict(checkpoint, target=Net())


def test_a_plan_from_a_file(checkpoint: dict, tmp_path) -> None:
    """The plan names the interface's factors, which are no square here."""
    checkpoint["linear.weight"] = torch.rand(3, 2 * 3 * 2)
    factors = [[(3, 3)], [(2, 2), (4, 3), (4, 2)]]
    kernel = [[(2, 2)], [(1, 1)], [(7, 5)], [(7, 5)]]
    plan = graphscale.Plan(
        weights=[
            graphscale.core.plan.WeightPlan("conv.weight", "kernel", kernel),
            graphscale.core.plan.WeightPlan("linear.weight", "interface", factors),
        ]
    )
    plan.save(tmp_path / "net.plan.json")
    for given in (plan, tmp_path / "net.plan.json"):
        grown = grow_state_dict(checkpoint, plan=given, target=Net())
        assert grown.linear.weight.shape == (3, 2 * 4 * 4)
