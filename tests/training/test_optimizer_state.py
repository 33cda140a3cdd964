"""Which optimizer is meant, how each kind of state grows, and what is reset, on two-tap weights."""

import pytest
import torch
from torch import nn

from graphscale import GraphScaleError
from graphscale.core.plan import WeightPlan
from graphscale.core.resampling import growth_matrix
from graphscale.training.optimizer_state import grown_states, like, plain_optimizer, put_states
from graphscale.training.weight_maps import WeightMap

MATRIX = torch.from_numpy(growth_matrix(2, 3)).float()
PLAN = WeightPlan("w", "kernel", [[(1, 1)], [(3, 2)]])
MAP = WeightMap("w", (1, 2), (1, 3), PLAN)


def state_after(optimizer: torch.optim.Optimizer, **state: object) -> dict:
    """The state of a weight after growth; `state` is what the optimizer holds before."""
    (parameter,) = optimizer.param_groups[0]["params"]
    optimizer.state[parameter] = state
    put_states(grown_states([optimizer], {parameter: MAP}, [parameter], "resize"))
    return dict(optimizer.state[parameter])


def weight() -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, 2))


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


class Wrapper:
    def __init__(self, name: str, optimizer: object) -> None:
        setattr(self, name, optimizer)


def test_optimizers_inside_wrappers() -> None:
    inner = torch.optim.SGD([weight()], 0.1)
    wrapped: object = inner
    for name in ("optimizer", "base_optimizer", "_base_optimizer"):
        wrapped = Wrapper(name, wrapped)
    assert plain_optimizer(inner) is inner
    assert plain_optimizer(Wrapper("optimizer", inner)) is inner
    with pytest.raises(GraphScaleError, match=r"Wrapper is no torch optimizer"):
        plain_optimizer(Wrapper("something", inner))
    with pytest.raises(GraphScaleError, match="LBFGS keeps vectors over all parameters"):
        plain_optimizer(torch.optim.LBFGS([weight()]))


@pytest.mark.parametrize("key", ["momentum_buffer", "exp_avg", "exp_avg_diff"])
def test_momenta_grow_by_the_weights_map(key: str) -> None:
    optimizer = torch.optim.SGD([weight()], 0.1)
    found = state_after(optimizer, step=torch.tensor(5.0), **{key: tensor(1, -2)})
    torch.testing.assert_close(found[key], tensor(1, -2) @ MATRIX.T)
    assert found["step"].item() == 5


def test_second_moments_grow_by_the_squared_map() -> None:
    optimizer = torch.optim.Adam([weight()])
    found = state_after(optimizer, exp_avg=tensor(1, -2), exp_avg_sq=tensor(1, 4))
    torch.testing.assert_close(found["exp_avg_sq"], tensor(1, 4) @ MATRIX.square().T)


def test_absolute_values_grow_by_the_root_of_the_squared_map() -> None:
    optimizer = torch.optim.Adamax([weight()])
    found = state_after(optimizer, exp_inf=tensor(1, 2))
    torch.testing.assert_close(found["exp_inf"], (tensor(1, 4) @ MATRIX.square().T).sqrt())


def test_the_variance_of_centred_rmsprop_stays_positive() -> None:
    """Var = square_avg - grad_avg² grows by the squared map; here it is (0, 3)."""
    optimizer = torch.optim.RMSprop([weight()], centered=True)
    found = state_after(optimizer, square_avg=tensor(1, 7), grad_avg=tensor(1, 2))
    variance = found["square_avg"] - found["grad_avg"].square()
    torch.testing.assert_close(variance, tensor(0, 3) @ MATRIX.square().T)


def test_state_without_a_rule_is_reset_and_named() -> None:
    optimizer = torch.optim.Rprop([weight()])
    with pytest.warns(UserWarning, match=r"Rprop: its state 'prev' has no rule .* of w is reset"):
        found = state_after(optimizer, prev=tensor(1, 2))
    assert found == {}


def test_lists_of_tensors_have_no_rule() -> None:
    with pytest.warns(UserWarning, match="'history' has no rule"):
        state_after(torch.optim.SGD([weight()], 0.1), history=[tensor(1, 2)])


def test_reset_leaves_the_state_of_a_new_optimizer() -> None:
    """None at all, but for Adagrad, whose state is made when the optimizer is."""
    for make in (torch.optim.Adam, lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.5)):
        parameter = weight()
        optimizer = make([parameter])
        parameter.grad = tensor(1, 2)
        optimizer.step()
        put_states(grown_states([optimizer], {parameter: MAP}, [parameter], "reset"))
        fresh = make([nn.Parameter(torch.zeros(1, 3))])
        wanted = list(fresh.state.values())
        found = list(optimizer.state.values())
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in other)


def test_nothing_changes_before_the_states_are_put() -> None:
    parameter = weight()
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.grad = tensor(1, 2)
    optimizer.step()
    held = optimizer.state[parameter]["momentum_buffer"]
    states = grown_states([optimizer], {parameter: MAP}, [parameter], "resize")
    assert optimizer.state[parameter]["momentum_buffer"] is held
    put_states(states)
    assert optimizer.state[parameter]["momentum_buffer"].shape == (1, 3)


def test_an_optimizer_of_another_module() -> None:
    with pytest.raises(GraphScaleError, match="SGD holds none of the module's parameters"):
        grown_states([torch.optim.SGD([weight()], 0.1)], {}, [weight()], "resize")


def test_memory_formats() -> None:
    """A tensor of one tap, or of one channel, fits both formats: `channels_last` decides."""
    last = torch.channels_last
    new = torch.zeros(4, 3, 5, 5)
    assert like(new, torch.zeros(4, 3, 2, 2).to(memory_format=last)).is_contiguous(
        memory_format=last
    )
    assert like(new, torch.zeros(4, 3, 2, 2)).is_contiguous()
    both = torch.zeros(4, 3, 1, 1)
    assert like(new, both).is_contiguous()
    assert like(new, both, channels_last=True).is_contiguous(memory_format=last)
    assert like(torch.zeros(4, 3), torch.zeros(4, 2), channels_last=True).is_contiguous()
