"""Layers split by stage over two and four ranks compute and learn what the whole network does."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from graphscale import GraphScaleError, grow_
from graphscale.distributed import PipelineParallel
from graphscale.distributed.pipeline_parallel import _even_ends
from graphscale.layers import FFTConv2d
from tests.distributed.ranks import on_ranks

BATCH = 8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        FFTConv2d(2, 3, 3),
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 4, 6),
        nn.Linear(6, 5),
    )


def batch(step: int, size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(size, 2, 7, 7, generator=generator)
    return images, torch.randint(5, (size,), generator=generator)


def trained(module: nn.Module, step, share: slice = slice(None)) -> list[float]:
    """Losses of steps, which accumulate the gradients of two batches of different sizes."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for number in range(3):
        for size in (BATCH, 2 * BATCH):
            images, target = batch(number, size)
            losses.append(float(step(images[share], target[share])))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def whole_step(module: nn.Module):
    def step(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(module(images), target)
        loss.backward()
        return loss.detach()

    return step


def in_rank(rank: int, schedule: str) -> tuple[list[float], torch.Tensor, list[str]]:
    layers = network()
    if rank:
        with torch.no_grad():
            layers[4].weight.zero_()  # the first rank's weights count
    ranks = distributed.get_world_size()
    split = (3, 3) if ranks == 2 else (1, 1, 3, 1)
    module = PipelineParallel(layers, nn.CrossEntropyLoss(), schedule=schedule, layers=split)
    losses = trained(module, module.step)
    return losses, module(batch(9, 3)[0]), list(module.state_dict())


@pytest.mark.parametrize(("ranks", "schedule"), [(2, "1f1b"), (4, "gpipe")])
def test_as_the_whole_network(ranks: int, schedule: str) -> None:
    answers = on_ranks(ranks, in_rank, schedule)
    whole = network()
    wanted = trained(whole, whole_step(whole))
    outputs = whole(batch(9, 3)[0]).detach()
    for losses, given, _ in answers:
        torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(given, outputs, rtol=0, atol=1e-5)
    names = [name.removeprefix("module.") for _, _, each in answers for name in each]
    assert names == list(whole.state_dict())  # each rank has its own layers and no others


def mixed_in_rank(rank: int) -> list[float]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "stage"))
    module = PipelineParallel(
        network(), nn.CrossEntropyLoss(), mesh=mesh["stage"], data_mesh=mesh["data"]
    )
    return trained(module, module.step, slice(rank // 2, None, 2))


def test_stages_and_data_parallel() -> None:
    whole = network()
    wanted = trained(whole, whole_step(whole))
    for losses in on_ranks(4, mixed_in_rank):
        torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-5)


def statistics_in_rank(rank: int) -> list[torch.Tensor]:
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(75, 5))
    module = PipelineParallel(layers, nn.CrossEntropyLoss(), layers=(1, 3))
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    module.step(*batch(0))
    return list(module.buffers())


def test_statistics_are_those_of_microbatches() -> None:
    """To learn the shapes, no layer runs: BatchNorm sees each microbatch once."""
    _, statistics = on_ranks(2, statistics_in_rank)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    for parameter in layers[0].parameters():
        nn.init.ones_(parameter)
    for part in batch(0)[0].chunk(2):
        layers(part)
    for given, wanted in zip(statistics, layers.buffers(), strict=True):
        torch.testing.assert_close(given, wanted)


def in_place() -> nn.Sequential:
    """Layers that change what they get, and a view of it; outputs in channels_last."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten()),
        *(nn.ReLU(inplace=True), nn.Linear(36, 36), nn.ReLU(inplace=True), nn.Linear(36, 5)),
    ).to(memory_format=torch.channels_last)


def in_place_in_rank(rank: int, layers: tuple) -> list[float]:
    module = PipelineParallel(in_place(), nn.CrossEntropyLoss(), layers=layers)
    return trained(module, module.step)


@pytest.mark.parametrize("layers", [(1, 7), (3, 5), (1, 2, 3, 2)])
def test_layers_in_place_and_channels_last(layers: tuple) -> None:
    answers = on_ranks(len(layers), in_place_in_rank, layers)
    whole = in_place()
    wanted = trained(whole, whole_step(whole))
    for losses in answers:
        torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-5)


def autocast_in_rank(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    module = PipelineParallel(network(), layers=(5, 1))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = module(batch(0)[0])
    return narrow, module(batch(0)[0])


def test_autocast_and_then_none() -> None:
    """A narrow output between stages is not expected where the next batch has a wide one."""
    whole = network()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = whole(batch(0)[0]).detach()
    for answer in on_ranks(2, autocast_in_rank):
        torch.testing.assert_close(answer[0], narrow)
        torch.testing.assert_close(answer[1], whole(batch(0)[0]).detach(), rtol=0, atol=1e-6)


def refused_in_rank(rank: int) -> None:
    with pytest.raises(GraphScaleError, match="Linear is no Sequential"):
        PipelineParallel(nn.Linear(2, 2))
    with pytest.raises(GraphScaleError, match="1 layers cannot be split over 2 ranks"):
        PipelineParallel(nn.Sequential(nn.Linear(2, 2)))
    two = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(GraphScaleError, match="'zb'; use 1f1b or gpipe"):
        PipelineParallel(two, schedule="zb")
    with pytest.raises(GraphScaleError, match="1 microbatches leave some of 2 ranks"):
        PipelineParallel(two, microbatches=1)
    with pytest.raises(GraphScaleError, match=r"layers \[2, 1\] do not share 2 layers"):
        PipelineParallel(two, layers=(2, 1))
    shared = nn.Linear(2, 2)
    with pytest.raises(GraphScaleError, match="weight of layer 1 is also a weight of another"):
        PipelineParallel(nn.Sequential(shared, shared), layers=(1, 1))
    module = PipelineParallel(two)
    with pytest.raises(GraphScaleError, match="step needs a loss"):
        module.step(torch.zeros(2, 2), torch.zeros(2, 2))
    module.loss = nn.MSELoss()
    with pytest.raises(GraphScaleError, match="a batch of 3 cannot be cut into 2 equal"):
        module.step(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(GraphScaleError, match="a batch of 0 cannot be cut"):
        module.step(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(GraphScaleError, match="the target has length 3 and the batch 4"):
        module.step(torch.zeros(4, 2), torch.zeros(3, 2))
    with pytest.raises(GraphScaleError, match="split by stage cannot grow in place"):
        grow_(module)


def test_refusals() -> None:
    on_ranks(2, refused_in_rank)
    with pytest.raises(GraphScaleError, match="start the script by torchrun"):
        PipelineParallel(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("weights", "stages", "ends"),
    [
        ([10, 1, 1], 2, [1, 3]),
        ([1, 1, 10], 2, [2, 3]),
        ([0, 0, 0, 10], 3, [2, 3, 4]),
        ([5, 5, 5, 5], 2, [2, 4]),
        ([0, 0], 2, [1, 2]),
        ([1, 0, 10, 0, 10, 0, 1], 4, [1, 3, 5, 7]),
        ([0, 2, 9, 0, 0, 1], 3, [2, 3, 6]),
    ],
)
def test_stages_of_about_as_many_weights(weights: list, stages: int, ends: list) -> None:
    assert _even_ends(weights, stages) == ends
