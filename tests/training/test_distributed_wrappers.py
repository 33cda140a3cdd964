"""DistributedDataParallel still averages gradients after growth in place."""

import copy
import socket
import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import graphscale

EXAMPLE = torch.zeros(2, 3, 32, 32)


def network() -> nn.Module:
    torch.manual_seed(0)
    target = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    )
    return nn.Sequential(*target, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    loss = F.cross_entropy(module(x), torch.arange(len(x)) % 5)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def images(size: int, rank: int) -> torch.Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(rank))


def train_in_rank(rank: int, world: int, port: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    try:
        for inside in (False, True):
            state = train(torch.load(f"{folder}/module.pt", weights_only=False), rank, inside)
            torch.save(state, f"{folder}/{rank}_{inside}.pt")
    finally:
        distributed.destroy_process_group()


def train(module: nn.Module, rank: int, inside: bool) -> dict[str, torch.Tensor]:
    """Growth between steps; with `inside`, only the module inside the wrapper is given."""
    size = module.graphscale_plan.inputs[0].pretrain[2]
    wrapped = DistributedDataParallel(module, gradient_as_bucket_view=inside)
    calls = []

    def hook(state: list, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        state.append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    wrapped.register_comm_hook(calls, hook)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    losses = [step(wrapped, optimizer, images(size, rank)) for _ in range(2)]
    graphscale.grow_(module if inside else wrapped, optimizers=optimizer)
    start = copy.deepcopy(module.state_dict())
    momentum = [copy.deepcopy(optimizer.state[p]) for p in module.parameters()]
    before = len(calls)
    losses += [step(wrapped, optimizer, images(32, rank)) for _ in range(3)]
    assert len(calls) >= before + 3
    assert calls[-1] > calls[0]
    # A wrapper made anew around a target with the same weights and momentum, as the reference.
    twin = network()
    twin.load_state_dict(start)
    again = DistributedDataParallel(twin, gradient_as_bucket_view=inside)
    renewed = torch.optim.SGD(again.parameters(), lr=0.1, momentum=0.9)
    for parameter, state in zip(twin.parameters(), momentum):
        renewed.state[parameter].update(state)
    for _ in range(3):
        step(again, renewed, images(32, rank))
    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    return module.state_dict()


@pytest.mark.parametrize("world", [1, 2])
def test_like_a_wrapper_made_anew(world: int, tmp_path: Path) -> None:
    torch.save(graphscale.shrink(network(), EXAMPLE), tmp_path / "module.pt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if world == 1:
        train_in_rank(0, world, port, str(tmp_path))
        return
    torch.multiprocessing.spawn(train_in_rank, (world, port, str(tmp_path)), nprocs=world)
    for inside in (False, True):
        states = [torch.load(tmp_path / f"{rank}_{inside}.pt") for rank in range(world)]
        for name, tensor in states[0].items():
            assert torch.equal(tensor, states[1][name])
