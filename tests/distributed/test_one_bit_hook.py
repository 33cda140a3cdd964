"""The 1-bit hook in DistributedDataParallel, against numpy, a dense mean and its own promises."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from graphscale import GraphScaleError
from graphscale.distributed import OneBitState, one_bit_hook
from tests.distributed.one_bit_reference import Averaging
from tests.distributed.ranks import on_ranks

SETTINGS = {"warm_up_steps": 0, "min_elements": 64}


class GivenGradients(nn.Module):
    """A module whose parameters have the gradients that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Parameter(torch.randn(5, 3, 40, dtype=torch.float64))
        self.narrow = nn.Parameter(torch.randn(6, 2, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(7, dtype=torch.float64))
        self.other = nn.Parameter(torch.randn(2, 128, dtype=torch.float64))

    def forward(self, gradients):
        named = dict(self.named_parameters())
        return sum((named[name] * gradient).sum() for name, gradient in gradients.items())


def given(rank: int, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return {
        name: torch.randn(each.shape, generator=generator, dtype=torch.float64)
        for name, each in GivenGradients().named_parameters()
    }


def hooked(module: nn.Module, state: dict | None = None, **options):
    """The module in DistributedDataParallel with the hook; buckets of about one parameter."""
    ddp = DistributedDataParallel(module, bucket_cap_mb=0.0005, **options)
    one_bit = OneBitState(ddp, **SETTINGS)
    if state is not None:
        one_bit.load_state_dict(state)
    ddp.register_comm_hook(one_bit, one_bit_hook)
    return ddp, one_bit


def step(ddp: nn.Module, gradients: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    ddp.zero_grad()
    ddp(gradients).backward()
    return found(ddp)


def found(ddp: nn.Module) -> dict[str, np.ndarray]:
    return {name: each.grad.detach().numpy().copy() for name, each in ddp.module.named_parameters()}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


# --- the numbers ----------------------------------------------------------------------------------


def average_in_rank(rank: int) -> list[dict[str, np.ndarray]]:
    ddp, state = hooked(GivenGradients())
    results = [step(ddp, given(rank, each)) for each in range(4)]
    assert state.step == 4
    assert state.not_finite == []
    return results


@pytest.mark.parametrize("ranks", [2, 3])
def test_against_numpy(ranks):
    answers = on_ranks(ranks, average_in_rank)
    for name in ("wide", "other", "narrow", "bias"):
        reference = Averaging()
        for at in range(4):
            each = np.stack([given(rank, at)[name].numpy() for rank in range(ranks)])
            if name in ("wide", "other"):
                wanted = reference(each.reshape(ranks, each.shape[1], -1)).reshape(each.shape[1:])
            else:  # few elements, short rows or one dimension: dense
                wanted = each.mean(0)
            for answer in answers:
                np.testing.assert_allclose(answer[at][name], wanted, atol=1e-12)
                np.testing.assert_array_equal(answer[at][name], answers[0][at][name])


def warm_up_in_rank(rank: int) -> list[dict[str, np.ndarray]]:
    ddp = DistributedDataParallel(GivenGradients())
    state = OneBitState(ddp, warm_up_steps=2, min_elements=64)
    ddp.register_comm_hook(state, one_bit_hook)
    results = []
    for at in range(3):
        results.append(step(ddp, given(rank, at)))
        assert bool(state.state_dict()["residuals"]) == (at == 2)
    return results


def test_dense_warm_up():
    (answer, _) = on_ranks(2, warm_up_in_rank)
    for at, dense in enumerate((True, True, False)):
        wanted = np.stack([given(rank, at)["wide"].numpy() for rank in range(2)]).mean(0)
        assert np.allclose(answer[at]["wide"], wanted, atol=1e-12) == dense


# --- checkpoints ----------------------------------------------------------------------------------


def resume_in_rank(rank: int) -> dict:
    ddp, state = hooked(GivenGradients())
    for at in range(2):
        step(ddp, given(rank, at))
    saved, gathered = copy.deepcopy(state.state_dict()), state.gathered_state_dict()
    assert saved["residuals"]["wide"].shape == (5, 3, 40)
    further = [step(ddp, given(rank, at)) for at in (2, 3)]
    ddp, state = hooked(GivenGradients(), saved)
    for at, wanted in zip((2, 3), further):
        assert_same(step(ddp, given(rank, at)), wanted)
    box = [gathered]
    distributed.broadcast_object_list(box)
    ddp, state = hooked(GivenGradients(), box[0])
    for at, wanted in zip((2, 3), further):
        assert_same(step(ddp, given(rank, at)), wanted)
    with pytest.raises(GraphScaleError, match=r"rank [01] of 2.*gathered_state_dict"):
        state.load_state_dict({**saved, "rank": 1 - rank})
    for other in ({}, None, [], {"all_ranks": []}, {"network": 1}):
        with pytest.raises(GraphScaleError, match="no state of one-bit gradients"):
            state.load_state_dict(other)
    with pytest.raises(GraphScaleError, match="'strange', which the module does not have"):
        state.load_state_dict({**saved, "residuals": {"strange": torch.zeros(1)}})
    return box[0]


def load_in_rank(rank: int, gathered: dict) -> dict:
    _, state = hooked(GivenGradients(), gathered)
    return state.gathered_state_dict() or {}


def test_resume_and_another_number_of_ranks():
    gathered = on_ranks(2, resume_in_rank)[0]
    three = on_ranks(3, load_in_rank, gathered)[0]["all_ranks"]
    assert [each["step"] for each in three] == [2, 2, 2]
    two = gathered["all_ranks"]
    for name in ("wide", "other"):
        mean = (two[0]["residuals"][name] + two[1]["residuals"][name]) / 2
        assert all(torch.equal(each["residuals"][name], mean) for each in three)
        home = torch.cat([each["home_residuals"][name] for each in two])
        assert torch.equal(torch.cat([e["home_residuals"][name] for e in three]), home)


# --- NaN and unused parameters --------------------------------------------------------------------


def nan_in_rank(rank: int) -> list:
    ddp, state = hooked(GivenGradients())
    step(ddp, given(rank, 0))
    before = copy.deepcopy(state.state_dict()["residuals"])
    faulty = given(rank, 1)
    if rank == 1:
        faulty["wide"][2, 1, 7] = float("nan")
        faulty["bias"][3] = float("inf")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = step(ddp, faulty)
    assert sorted(state.not_finite) == ["bias", "wide"]
    assert not np.isfinite(result["wide"][2]).all()
    assert np.isfinite(np.delete(result["wide"], 2, axis=0)).all()
    after = state.state_dict()["residuals"]
    assert torch.equal(after["wide"][2], before["wide"][2])
    assert not torch.equal(after["wide"][1], before["wide"][1])
    for at in range(2, 5):
        assert all(np.isfinite(each).all() for each in step(ddp, given(rank, at)).values())
    assert state.not_finite == []
    return [str(each.message) for each in caught if "NaN" in str(each.message)]


def test_nan_is_named_and_forgotten():
    quiet, (warning,) = on_ranks(2, nan_in_rank)
    assert quiet == []
    assert "step 2: on rank 1 the gradient of" in warning
    assert "'wide'" in warning
    assert "'bias'" in warning


def unused_in_rank(rank: int) -> None:
    ddp, state = hooked(GivenGradients(), find_unused_parameters=True)
    step(ddp, given(rank, 0))
    before = copy.deepcopy(state.state_dict()["residuals"])
    used = given(rank, 1)
    del used["other"]
    if rank == 0:
        del used["wide"]  # unused on one rank, used on the other
    ddp.zero_grad(set_to_none=True)
    ddp(used).backward()
    assert ddp.module.other.grad is None
    after = state.state_dict()["residuals"]
    assert torch.equal(after["other"], before["other"])
    assert torch.equal(after["wide"], before["wide"]) == (rank == 0)
    assert ddp.module.wide.grad.any()


def test_unused_parameters_keep_their_residuals():
    on_ranks(2, unused_in_rank)


# --- what DistributedDataParallel can do ----------------------------------------------------------


def ddp_in_rank(rank: int) -> None:
    accumulation(rank)
    mixed_precision(rank)
    memory_formats(rank)
    sparse_gradients(rank)
    pickled(rank)


def test_accumulation_mixed_precision_memory_formats_and_sparse_gradients():
    on_ranks(2, ddp_in_rank)


def accumulation(rank: int) -> None:
    """Two backward passes, the first without exchange, are one with the sum of the gradients."""
    ddp, _ = hooked(GivenGradients(), gradient_as_bucket_view=True)
    one, other = given(rank, 0), given(rank, 1)
    ddp.zero_grad()
    with ddp.no_sync():
        ddp(one).backward()
    ddp(other).backward()
    accumulated = found(ddp)
    at_once, _ = hooked(GivenGradients())
    wanted = step(at_once, {name: one[name] + other[name] for name in one})
    for name, each in wanted.items():
        np.testing.assert_allclose(accumulated[name], each, atol=1e-12)


def mixed_precision(rank: int) -> None:
    """Residuals follow a GradScaler's scale: the steps are those without one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    runs = []
    for scales in ((1.0, 1.0, 1.0), (1024.0, 512.0, 2048.0)):
        scaler = torch.amp.GradScaler("cpu", init_scale=scales[0])
        ddp = DistributedDataParallel(copy.deepcopy(module))
        state = OneBitState(ddp, grad_scaler=scaler, **SETTINGS)
        ddp.register_comm_hook(state, one_bit_hook)
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(rank)
        for scale in scales:
            scaler.scale(torch.zeros(1))  # makes the scale that update changes
            scaler.update(scale)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = ddp(torch.randn(16, 64, generator=generator)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
        runs.append([each.detach().clone() for each in ddp.parameters()])
    for one, other in zip(*runs):
        assert torch.equal(one, other)  # scales are powers of two
    half = DistributedDataParallel(copy.deepcopy(module).to(torch.bfloat16))
    half.register_comm_hook(OneBitState(half, **SETTINGS), one_bit_hook)
    half(torch.ones(4, 64, dtype=torch.bfloat16)).sum().backward()
    assert all(each.grad.isfinite().all() for each in half.parameters())


def memory_formats(rank: int) -> None:
    """Channels_last: a row is a filter, and a checkpoint holds residuals by their places."""
    torch.manual_seed(0)
    module = nn.Conv2d(16, 4, 3, bias=False)
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(rank))
    results = []
    for form in (torch.contiguous_format, torch.channels_last):
        ddp, state = hooked(copy.deepcopy(module).to(memory_format=form))
        for _ in range(2):
            ddp.zero_grad()
            ddp(x.to(memory_format=form)).square().mean().backward()
        results.append((ddp.module.weight.grad, state.state_dict()))
        _, other = hooked(copy.deepcopy(module).to(memory_format=form), state.state_dict())
        assert torch.equal(
            other.state_dict()["residuals"]["weight"], state.state_dict()["residuals"]["weight"]
        )
    (one, saved), (other, saved_last) = results
    torch.testing.assert_close(one, other)
    for key in ("residuals", "home_residuals"):
        torch.testing.assert_close(saved[key]["weight"], saved_last[key]["weight"])


class AnyLayout(nn.Module):
    """Weights that are no contiguous matrices, with given gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.permuted = nn.Parameter(torch.randn(5, 40, 3, dtype=torch.float64).transpose(1, 2))
        self.part = nn.Parameter(torch.randn(5, 90, dtype=torch.float64)[:, :70])
        self.transposed = nn.Parameter(torch.randn(96, 8, dtype=torch.float64).t())
        self.complex = nn.Parameter(torch.randn(8, 64, dtype=torch.complex128))

    def forward(self, gradients):
        named = dict(self.named_parameters())
        return sum((named[name] * each.conj()).real.sum() for name, each in gradients.items())


def test_layouts():
    on_ranks(2, layouts_in_rank)


def layouts_in_rank(rank: int) -> None:
    """Rows are quantised wherever they lie; transposed and complex weights are sent as they are."""
    ddp, state = hooked(AnyLayout())
    references = {"permuted": Averaging(), "part": Averaging()}
    for at in range(3):
        every = [
            {
                name: torch.randn(
                    each.shape,
                    dtype=each.dtype,
                    generator=torch.Generator().manual_seed(10 * of + at),
                )
                for name, each in AnyLayout().named_parameters()
            }
            for of in range(2)
        ]
        ddp.zero_grad()
        ddp(every[rank]).backward()
        for name, parameter in ddp.module.named_parameters():
            given = np.stack([each[name].numpy() for each in every])
            wanted = given.mean(0)
            if name in references:
                wanted = references[name](given.reshape(2, 5, -1)).reshape(parameter.shape)
            np.testing.assert_allclose(parameter.grad.numpy(), wanted, atol=1e-12)
    saved = state.state_dict()
    assert saved["residuals"].keys() == references.keys()
    for name, reference in references.items():
        np.testing.assert_allclose(
            saved["residuals"][name].flatten(1).numpy(), reference.residuals[rank], atol=1e-12
        )
    _, other = hooked(AnyLayout(), saved)
    for name, residual in other.state_dict()["residuals"].items():
        assert torch.equal(residual, saved["residuals"][name])


def sparse_gradients(rank: int) -> None:
    """A sparse gradient is averaged as it is."""
    torch.manual_seed(0)
    ddp, _ = hooked(nn.Embedding(50, 64, sparse=True))
    ddp(torch.tensor([rank, 7])).sum().backward()
    wanted = torch.zeros(50, 64)
    wanted[[0, 1]] = 0.5
    wanted[7] = 1.0
    assert torch.equal(ddp.module.weight.grad.to_dense(), wanted)


def pickled(rank: int) -> None:
    """A copy of the wrapper, as weight averaging makes it, takes the state along."""
    _, state = hooked(GivenGradients())
    assert copy.deepcopy(state).step == state.step


def join_in_rank(rank: int) -> list[np.ndarray]:
    torch.manual_seed(0)
    ddp, state = hooked(nn.Linear(64, 8))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    with ddp.join():
        for _ in range(2 + 2 * rank):  # rank 1 has two batches more
            loss = F.mse_loss(ddp(torch.randn(8, 64, generator=generator)), torch.ones(8, 8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert state.step == 4
    return [each.detach().numpy() for each in ddp.parameters()]


def test_join_with_uneven_batches():
    one, other = on_ranks(2, join_in_rank)
    for a, b in zip(one, other):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


# --- convergence and refusals ---------------------------------------------------------------------


def converge_in_rank(rank: int) -> list[float]:
    """Regression onto a fixed matrix, with gradients in one bit and dense."""
    losses = []
    for dense in (True, False):
        torch.manual_seed(0)
        target = torch.randn(16, 64)
        ddp = DistributedDataParallel(nn.Linear(64, 16, bias=False))
        if not dense:
            ddp.register_comm_hook(OneBitState(ddp, **SETTINGS), one_bit_hook)
        optimizer = torch.optim.SGD(ddp.parameters(), lr=2.0)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(80):
            x = torch.randn(32, 64, generator=generator)
            loss = F.mse_loss(ddp(x), x @ target.T)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(F.mse_loss(ddp.module.weight, target).item())
    return losses


def test_converges():
    dense, one_bit = on_ranks(2, converge_in_rank)[0]
    assert dense < 1e-3
    assert one_bit < 1e-2  # the loss at first is 1


def test_refusals():
    with pytest.raises(GraphScaleError, match="give 0 or more"):
        OneBitState(nn.Linear(2, 2), warm_up_steps=-1)
    state = OneBitState(nn.Linear(2, 2))
    with pytest.raises(GraphScaleError, match="make the state from the module"):
        state._name(nn.Parameter(torch.zeros(3)))
