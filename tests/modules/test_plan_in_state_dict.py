"""A checkpoint of a pre-train module is enough to grow it; its keys stay the target's."""

import copy
import io
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale import Plan

from .rescaled import shrink

EXAMPLE = torch.randn(2, 3, 32, 32)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 7, 2, 3)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(F.max_pool2d(self.norm(self.first(x)).relu(), 2).flatten(1))


@pytest.fixture(scope="module")
def target() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


@pytest.fixture(scope="module")
def shrunk(target: nn.Module) -> nn.Module:
    return shrink(target, EXAMPLE)


def saved(checkpoint: object) -> object:
    """The object after torch.save and torch.load with torch's defaults."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_grown(checkpoint: object, target: nn.Module, expected: nn.Module) -> None:
    grown = graphscale.grow(checkpoint, target=target)
    assert type(grown) is Plain
    assert not hasattr(grown, "graphscale_plan")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(grown.state_dict()[name], tensor)


def plan_of(checkpoint: object) -> str:
    plan = Plan.of(checkpoint)
    assert plan is not None
    return plan.to_json()


def test_no_key_is_added(target: nn.Module, shrunk: nn.Module) -> None:
    assert list(shrunk.state_dict()) == list(target.state_dict())
    again = copy.deepcopy(shrunk)
    assert again.load_state_dict(shrunk.state_dict()) == ([], [])
    assert plan_of(again.state_dict()) == shrunk.graphscale_plan.to_json()
    assert plan_of(pickle.loads(pickle.dumps(shrunk)).state_dict()) == plan_of(shrunk.state_dict())


WRAPPERS = {
    "plain": lambda m: m.state_dict(),
    "parallel": lambda m: nn.DataParallel(m).state_dict(),
    "averaged": lambda m: torch.optim.swa_utils.AveragedModel(m).state_dict(),
    "compiled": lambda m: torch.compile(m, backend="eager").state_dict(),
    "nested": lambda m: {"epoch": 3, "state_dict": m.state_dict(), "optimizer": {"state": {}}},
    "part": lambda m: nn.ModuleDict({"net": m, "loss": nn.Linear(2, 2)}).state_dict(),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_survives(name: str, target: nn.Module, shrunk: nn.Module) -> None:
    checkpoint = saved(WRAPPERS[name](shrunk))
    assert plan_of(checkpoint) == shrunk.graphscale_plan.to_json()
    if name == "averaged":  # has a count of its own beside the module's weights
        assert "n_averaged" in checkpoint
    assert_grown(checkpoint, target, graphscale.grow(shrunk))


def test_a_grown_module_writes_no_plan(shrunk: nn.Module) -> None:
    assert Plan.of(graphscale.grow(shrunk).state_dict()) is None
    module = copy.deepcopy(shrunk)
    graphscale.grow_(module)
    assert Plan.of(module.state_dict()) is None


def test_where_the_plan_was_lost(target: nn.Module, shrunk: nn.Module, tmp_path) -> None:
    lost = {f"module.{name}": tensor for name, tensor in shrunk.state_dict().items()}
    assert Plan.of(lost) is None
    shrunk.graphscale_plan.save(tmp_path / "net.plan.json")
    expected = graphscale.grow(shrunk)
    grown = graphscale.grow(lost, plan=tmp_path / "net.plan.json", target=target)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(grown.state_dict()[name], tensor)
    with pytest.raises(graphscale.GraphScaleError, match=r"may be 8×8 to 6×6 or 4×16 to 4×9; give"):
        graphscale.grow(lost, target=target)
    again = graphscale.plan(target, EXAMPLE)
    grown = graphscale.grow(lost, plan=again, target=target)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(grown.state_dict()[name], tensor)


class Positions(nn.Module):
    """A table per position, which shapes alone do not explain."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 7, 2, 3)
        self.places = nn.Parameter(torch.randn(1, 8, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.enter(x) + self.places


def test_errors_say_what_to_give(target: nn.Module, shrunk: nn.Module) -> None:
    state = shrunk.state_dict()
    with pytest.raises(graphscale.GraphScaleError, match="module of the target network as target"):
        graphscale.grow(state)
    with pytest.raises(graphscale.GraphScaleError, match=r"of another network.*lacks 'bias'"):
        graphscale.grow(state, target=nn.Linear(2, 2))
    with pytest.raises(graphscale.GraphScaleError, match="holds no state dict"):
        graphscale.grow({"epoch": 3}, target=target)
    several = {"state_dict": state, "state_dict_ema": OrderedDict(state)}
    several["state_dict_ema"]._metadata = state._metadata
    with pytest.raises(graphscale.GraphScaleError, match=r"\['state_dict'\], \['state_dict_ema'\]"):
        graphscale.grow(several, target=target)
    module = Positions()
    lost = dict(shrink(module, EXAMPLE).state_dict())
    with pytest.raises(graphscale.GraphScaleError, match=r"give the plan, .*plan\.save\(path\)"):
        graphscale.grow(lost, target=module)
