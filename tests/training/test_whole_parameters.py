"""Growth of a network that is sharded over ranks equals growth of the whole network."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn import functional as F

import graphscale
from graphscale import GraphScaleError
from tests.distributed.ranks import on_ranks

SIZE = 32


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 7, 2, 3), nn.ReLU(), nn.Conv2d(5, 6, 5, padding=2), nn.ReLU()]
    # The fully-connected layer on a map has more inputs after growth.
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16 * 16, 4)).double()


def images(step: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, size, size, generator=generator, dtype=torch.float64)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range, size: int) -> None:
    """Every rank has the same images, so that averaged gradients are those of one process."""
    for step in steps:
        loss = F.cross_entropy(module(images(step, size)), torch.arange(4) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def grown(module: nn.Module, pretrain_size: int) -> dict[str, torch.Tensor]:
    """Weights and AdamW's moments after training, growth and training."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    train(module, optimizer, range(2), pretrain_size)
    graphscale.grow_(module, optimizers=optimizer)
    result = {f"grown {n}": whole(p) for n, p in module.state_dict().items()}
    train(module, optimizer, range(2, 4), SIZE)
    result |= {n: whole(p) for n, p in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        assert set(optimizer.state) == set(module.parameters())
        for key in ("exp_avg", "exp_avg_sq"):
            result[f"{key} {name}"] = whole(optimizer.state[parameter][key])
    return result


def whole(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return tensor.detach().clone()


def grow_in_rank(rank: int, pretrain: nn.Module, size: int) -> list[dict]:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    results = []
    fully = copy.deepcopy(pretrain)
    for layer in (fully[0], fully[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(fully, mesh=mesh)
    results.append(grown(fully, size))
    assert fully[5].weight.placements[0].is_shard()
    split = copy.deepcopy(pretrain)
    parallelize_module(split, mesh, {"5": ColwiseParallel(output_layouts=None)})
    split.register_forward_hook(lambda module, args, result: gathered(result, mesh))
    results.append(grown(split, size))
    # A mistake is found before anything changes, and the module stays sharded.
    again = copy.deepcopy(pretrain)
    fully_shard(again, mesh=mesh)
    with torch.no_grad():
        again[0].weight.to_local().fill_(float("nan"))
    with pytest.raises(GraphScaleError, match="holds NaN"):
        graphscale.grow_(again)
    assert again[0].weight.placements[0].is_shard()
    again(images(0, size))
    return results


def gathered(result: torch.Tensor, mesh) -> torch.Tensor:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    if isinstance(result, DTensor):
        return result.full_tensor()
    return DTensor.from_local(result, mesh, [Shard(1)]).redistribute(mesh, [Replicate()]).to_local()


def test_as_the_whole_network():
    pretrain = graphscale.shrink(network(), torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64))
    size = pretrain.graphscale_plan.inputs[0].pretrain[2]
    answers = on_ranks(2, grow_in_rank, pretrain, size)
    alone = grown(pretrain, size)
    for answer in answers:
        for name, wanted in alone.items():
            for result in answer:
                torch.testing.assert_close(result[name], wanted, rtol=0, atol=1e-9)
    for one, other in zip(*answers):
        assert all(torch.equal(one[name], other[name]) for name in one)
