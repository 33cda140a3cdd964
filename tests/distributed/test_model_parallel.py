"""Layers split over two and four ranks compute and learn what the whole network does."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from graphscale import GraphScaleError
from graphscale.distributed import DataParallel, ModelParallel, get_full_state_dict
from graphscale.layers import HierarchicalSoftmax, LookupTable, WeightedLookupTable
from tests.distributed.ranks import on_ranks

CLASSES, BATCH = 23, 8


class Words(nn.Module):
    """A lookup table, a wide layer and a hierarchical softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = LookupTable(11, 6, padding_idx=3)
        self.wide = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 13), nn.Tanh(), nn.Linear(13, 5))
        clusters = torch.randint(5, (CLASSES,), generator=torch.Generator().manual_seed(1))
        self.softmax = HierarchicalSoftmax(5, CLASSES, clusters)
        self.double()

    def forward(self, words, target):
        return self.softmax(self.wide(self.table(words)), target)


def words(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    target = torch.randint(CLASSES, (BATCH,), generator=generator)
    return torch.randint(11, (BATCH,), generator=generator), target


def trained(module: nn.Module, share: slice, forward=None) -> list[float]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for step in range(3):
        given, target = words(step)
        loss = (forward or module)(given[share], target[share])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def words_in_rank(rank: int) -> dict[str, list[float]]:
    ranks = distributed.get_world_size()
    found = {"same": trained(ModelParallel(Words()), slice(None))}
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    found["split"] = trained(ModelParallel(Words(), batch="split"), share)
    module = ModelParallel(Words())
    assert len(module.module.table.weight) < 11
    assert len(module.module.softmax.weight) < CLASSES
    assert module.module.wide[1].weight.to_local().shape[0] < 13
    left_out = words(0)[1]
    left_out[2] = -100
    found["left out"] = [module(words(0)[0], left_out).item()]
    with pytest.raises(GraphScaleError, match="not in the table's 11 rows"):
        module.module.table(torch.tensor([11]))
    with pytest.raises(GraphScaleError, match=r"no class; give numbers from 0 to 22, or -100"):
        module.module.softmax(torch.zeros(1, 5).double(), torch.tensor([23]))
    with pytest.raises(GraphScaleError, match="Sequential has no layer that can be split"):
        ModelParallel(nn.Sequential(nn.ReLU()))
    with pytest.raises(GraphScaleError, match="0 is a WeightedLookupTable"):
        ModelParallel(nn.Sequential(WeightedLookupTable(3, 2)))
    with pytest.raises(GraphScaleError, match="a table with max_norm"):
        ModelParallel(LookupTable(3, 2, max_norm=1.0))
    with pytest.raises(GraphScaleError, match="1 clusters with dense gradients"):
        ModelParallel(HierarchicalSoftmax(3, 4, num_clusters=1))
    with pytest.raises(GraphScaleError, match="'other'; use same or split"):
        ModelParallel(nn.Linear(2, 2), batch="other")
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_as_the_whole_module(ranks):
    answers = on_ranks(ranks, words_in_rank)
    alone = trained(Words(), slice(None))
    for answer in answers:
        torch.testing.assert_close(answer["same"], alone, rtol=0, atol=1e-10)
        left_out = words(0)[1]
        left_out[2] = -100
        wanted = Words()(words(0)[0], left_out).item()
        torch.testing.assert_close(answer["left out"], [wanted], rtol=0, atol=1e-10)
    means = [sum(losses) / ranks for losses in zip(*(each["split"] for each in answers))]
    torch.testing.assert_close(means, alone, rtol=0, atol=1e-10)


# --- data-parallel convolutions before a model-parallel classifier --------------------------------


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(3 * 16, 10), nn.ReLU(), nn.Linear(10, 7))
        self.double()

    def forward(self, images, target):
        return nn.functional.cross_entropy(self.classifier(self.features(images)), target)


def mixed_training(module: nn.Module, share: slice) -> list[float]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(BATCH, 2, 6, 6, generator=generator, dtype=torch.float64)
        target = torch.randint(7, (BATCH,), generator=generator)
        for part in (slice(0, None, 2), slice(1, None, 2)):  # accumulates the gradients of two
            loss = module(images[share][part], target[share][part]) / 2
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def mixed_in_rank(rank: int) -> tuple[list[float], list[torch.Tensor]]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    module = Mixed()
    if rank:
        with torch.no_grad():
            module.classifier[0].weight.zero_()  # the first rank's weights count
    module.features = DataParallel(module.features)
    module.classifier = ModelParallel(
        module.classifier, mesh["model"], batch="split", data_mesh=mesh["data"]
    )
    share = slice(rank * BATCH // 4, (rank + 1) * BATCH // 4)
    losses = mixed_training(module, share)
    weights = [
        each.full_tensor() if hasattr(each, "full_tensor") else each for each in module.parameters()
    ]
    return losses, [each.detach().clone() for each in weights]


def test_data_parallel_convolutions_and_model_parallel_classifier():
    answers = on_ranks(4, mixed_in_rank)
    alone = copy.deepcopy(Mixed())
    mixed_training(alone, slice(None))
    for _, weights in answers:
        for weight, wanted in zip(weights, alone.parameters(), strict=True):
            torch.testing.assert_close(weight, wanted.detach(), rtol=0, atol=1e-10)


# --- layers of many kinds -------------------------------------------------------------------------


class AnyLayers(nn.Module):
    """Frozen layers, one layer at two places, padding with weights, a single output, attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Embedding.from_pretrained(torch.randn(11, 8))
        self.table = nn.Embedding(11, 8, padding_idx=3)
        nn.init.normal_(self.table.weight)
        self.again = self.table
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.narrow = nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 8))
        self.narrow[1].weight.requires_grad_(False)
        self.softmax = HierarchicalSoftmax(8, CLASSES)
        self.softmax.weight.requires_grad_(False)
        self.double()

    def forward(self, words, target):
        x = torch.stack([self.frozen(words), self.table(words), self.again(words + 0)], 1)
        x = self.attention(x, x, x)[0].mean(1)
        return self.softmax(x + self.narrow(x).sin(), target)


def any_layers_in_rank(rank: int) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for batch in ("same", "split"):
        module = ModelParallel(AnyLayers(), batch=batch)
        assert module.module.table is module.module.again
        share = slice(None) if batch == "same" else slice(rank * 4, rank * 4 + 4)
        trained(module, share)
        found[batch] = get_full_state_dict(module)[0]
    return found


def test_layers_of_many_kinds():
    first, _ = on_ranks(2, any_layers_in_rank)
    whole = AnyLayers()
    trained(whole, slice(None))
    for weights in first.values():
        torch.testing.assert_close(weights, dict(whole.state_dict()), rtol=0, atol=1e-10)


def refused_in_rank(rank: int) -> None:
    tied = nn.ModuleDict({"table": nn.Embedding(6, 4), "out": nn.Linear(4, 6)})
    tied["out"].weight = tied["table"].weight
    with pytest.raises(GraphScaleError, match="weight of out is also a weight of table"):
        ModelParallel(tied)
    weight_norm = nn.utils.parametrizations.weight_norm
    with pytest.raises(GraphScaleError, match="weight of 0 is computed from others"):
        ModelParallel(nn.Sequential(weight_norm(nn.Linear(4, 6))))
    with pytest.raises(GraphScaleError, match="or scale_grad_by_freq cannot be split"):
        ModelParallel(nn.Embedding(6, 4, scale_grad_by_freq=True))
    with pytest.raises(GraphScaleError, match="weight has no shape before the first forward"):
        ModelParallel(nn.LazyLinear(4))
    with pytest.raises(GraphScaleError, match="computes with the weight of a split Linear itself"):
        ModelParallel(ReadsWeight())(torch.zeros(2, 4))
    for batch in ("same", "split"):
        module = ModelParallel(nn.Linear(4, 6), batch=batch)
        with pytest.raises(GraphScaleError, match=r"rank 0 has batches of \[3\].*rank 1 of \[4\]"):
            module(torch.zeros(3 + rank, 4))


class ReadsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)

    def forward(self, x):
        return x @ self.inner.weight.T


def test_refused_layers_and_batches():
    on_ranks(2, refused_in_rank)


def strided_in_rank(rank: int) -> dict[str, torch.Tensor]:
    module = nn.Module()
    torch.manual_seed(rank)
    module.linear = nn.Linear(2, 2)
    module.form = nn.Parameter(torch.randn(2, 3, 2, 2))
    if rank:
        module.form.data = module.form.data.to(memory_format=torch.channels_last)
    module.register_buffer("part", (torch.arange(20.0) + rank).view(4, 5)[:, :3])
    module.register_buffer("expanded", torch.full((1,), float(rank)).expand(4))
    split = ModelParallel(module).module
    return {"form": split.form.detach(), "part": split.part, "expanded": split.expanded}


def test_the_first_ranks_tensors_in_any_strides():
    first, second = on_ranks(2, strided_in_rank)
    torch.manual_seed(0)
    nn.Linear(2, 2)
    assert torch.equal(second["form"], torch.randn(2, 3, 2, 2))
    assert torch.equal(second["part"], torch.arange(20.0).view(4, 5)[:, :3])
    assert torch.equal(second["expanded"], torch.zeros(4))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])


def test_refusal():
    with pytest.raises(GraphScaleError, match="start the script by torchrun"):
        ModelParallel(nn.Linear(2, 2))
