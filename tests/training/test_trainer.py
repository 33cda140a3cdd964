"""The loop: resuming bit for bit, growth on the way, the rate, diverging."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import graphscale
from graphscale import GraphScaleError
from graphscale.training.image_batches import TensorBatches
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.recipes import RECIPES, Recipe, RecipeStage, recipe
from graphscale.training.rescaled_networks import RescaledNetworks
from graphscale.training.run_folder import RunFolder
from graphscale.training.trainer import (
    Events,
    Interrupted,
    Trainer,
    TrainingOptions,
)

TWO_STAGES = Recipe(
    "two stages", (RecipeStage(0.7, {3: 3}), RecipeStage(1.0, target=True)), decay="after growth"
)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 2),
    )


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of horizontal or vertical bars."""
    generator = torch.Generator().manual_seed(seed)
    shown = 0.3 * torch.randn(count, 1, 16, 16, generator=generator)
    labels = torch.randint(2, (count,), generator=generator)
    for image, label, place in zip(shown, labels, torch.randint(16, (count,), generator=generator)):
        image[0, place, :] += label
        image[0, :, place] += 1 - label
    return shown, labels


def trainer(chosen: Recipe, folder: Path | None = None, **options) -> Trainer:
    torch.manual_seed(5)
    networks = RescaledNetworks(network(), torch.zeros(1, 1, 16, 16), chosen)
    batches = TensorBatches(images(96, 0), images(40, 1), batch=16)
    options = {"epochs": 6, "rate": 0.05, "schedule": RateSchedule("steps"), **options}
    run = None
    if folder is not None:
        run = RunFolder(folder)
        run.path.mkdir(exist_ok=True)
    return Trainer(networks, batches, chosen, TrainingOptions(**options), run)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_ends_in_the_target(name: str) -> None:
    run = trainer(RECIPES[name], rate=0.02)
    trained = run.run()
    shapes = {key: weight.shape for key, weight in network().state_dict().items()}
    assert {key: weight.shape for key, weight in trained.state_dict().items()} == shapes
    assert [each.epoch for each in run.records] == [1, 2, 3, 4, 5, 6]
    assert run.records[-1].image_size == 16
    sizes = [each.image_size for each in run.records]
    assert sizes == sorted(sizes)
    assert (sizes[0] < 16) == (name != "target")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [1, 8, 6, 24, 27, 36])
def test_resuming_is_bit_for_bit(tmp_path: Path, stop: int, optimizer: str) -> None:
    options = {"optimizer": optimizer, "rate": 0.01}
    whole = trainer(TWO_STAGES, **options)
    whole.run()
    part = trainer(TWO_STAGES, tmp_path, **options)
    steps = iter(range(1, 100))

    def stepped(epoch: int, batch: int, batches: int) -> None:
        part.stop = next(steps) == stop

    part.events = Events(batch_done=stepped)
    with pytest.raises(Interrupted):
        part.run()
    rest = trainer(TWO_STAGES, tmp_path, **options)
    rest.run(RunFolder(tmp_path).load())
    for one, other in zip(
        whole.network.state_dict().values(), rest.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    kept = ("epoch", "stage", "rate", "train_loss", "accuracy", "straight_after_growth")
    for one, other in zip(whole.records, rest.records, strict=True):
        assert [getattr(one, key) for key in kept] == [getattr(other, key) for key in kept]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stage", 7, "IndexError"),
        ("stage", [0], "no whole numbers"),
        ("place", [2, 0], "0 records of 2 epochs"),
        ("place", [9, 0], "stage 0, epoch 9"),
        ("network", {}, "Missing key"),
        ("random", None, "KeyError: 'random'"),
        ("seconds", ["x"], "could not convert"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    run = trainer(TWO_STAGES, tmp_path)
    run.events = Events(batch_done=lambda *_: setattr(run, "stop", True))
    with pytest.raises(Interrupted):
        run.run()
    state = {**RunFolder(tmp_path).load(), key: value}
    if value is None:
        del state[key]
    with pytest.raises(GraphScaleError, match=rf"last\.pt: is of another .*{said}.*--resume"):
        trainer(TWO_STAGES, tmp_path).run(state)


def test_growth_carries_the_weights_over() -> None:
    run = trainer(TWO_STAGES)
    seen: list[tuple[nn.Module, nn.Module]] = []
    grow = run.networks.grow

    def watched(small: nn.Module, stage: int, optimizer: torch.optim.Optimizer) -> nn.Module:
        wanted = graphscale.grow(small)
        grown = grow(small, stage, optimizer)
        assert grown is small
        for one, other in zip(wanted.state_dict().values(), grown.state_dict().values()):
            assert torch.equal(one, other)
        seen.append((wanted, grown))
        return grown

    run.networks.grow = watched
    run.run()
    ((wanted, grown),) = seen
    assert wanted.state_dict().keys() == grown.state_dict().keys()
    assert run.records[4].straight_after_growth is not None  # 0.7 of 6 epochs: after the fourth


def test_a_compiled_network_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled once for each size, without a symbolic one; this backend computes as torch does."""
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(str(graph.graph))
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module, **options: original(module, backend=backend, **options)
    )
    plain, run = trainer(TWO_STAGES), trainer(TWO_STAGES, compile=True)
    plain.run()
    run.run()
    assert len(graphs) == 2  # one for each stage; validation runs the network itself
    assert not any("SymInt" in graph for graph in graphs)
    for one, other in zip(
        plain.network.state_dict().values(), run.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_the_whole_decay_comes_after_growth() -> None:
    run = trainer(TWO_STAGES, schedule=RateSchedule("linear"), epochs=10)
    rates = [run._rate(done) for done in (0, 3, 6.99, 7, 8.5, 10)]
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.025, 0.0])


def test_weight_decay_ends_at_its_epoch() -> None:
    run = trainer(RECIPES["target"], weight_decay=0.1, weight_decay_until=3)
    run.run()
    assert [group["weight_decay"] for group in run._optimizer.param_groups] == [0.0, 0.0]


def test_diverging_is_one_sentence() -> None:
    run = trainer(RECIPES["target"], rate=1e12)
    with pytest.raises(GraphScaleError, match=r"diverged; give a smaller --rate"):
        run.run()


def test_options_are_checked() -> None:
    with pytest.raises(GraphScaleError, match="unknown optimizer"):
        TrainingOptions(optimizer="lbfgs")
    with pytest.raises(GraphScaleError, match="unknown precision"):
        TrainingOptions(precision="int8")
    assert recipe("late").decay == "after growth"


def test_recipe_that_needs_fewer_epochs_keeps_those_of_the_warm_up() -> None:
    options = TrainingOptions(
        epochs=20, schedule=RateSchedule("linear", warm_up=0.1), weight_decay_until=10
    )
    shorter = options.for_recipe(replace(recipe("target"), length=0.75))
    assert shorter.epochs == 15
    assert shorter.schedule.warm_up * shorter.epochs == pytest.approx(2)
    assert shorter.weight_decay_until == 8  # half of 15
    assert options.for_recipe(recipe("target")) == options


def test_every_stage_has_an_epoch_if_there_are_enough() -> None:
    stages = len(recipe("late").stages)
    assert TrainingOptions(epochs=stages).for_recipe(recipe("late")).epochs == stages
    assert TrainingOptions(epochs=2).for_recipe(recipe("late")).epochs == 2
