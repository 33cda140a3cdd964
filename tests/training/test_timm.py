"""The recipe for timm: its model, optimizer, scheduler, weight average and checkpoints."""

import argparse
import copy
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import graphscale
from graphscale.training import GrowthLR, GrowthSchedule, grow_, resize_batch

from . import timm_stub

pytest.importorskip("safetensors")
timm_stub.install()
timm = pytest.importorskip("timm")

from timm.models import resume_checkpoint  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import CheckpointSaver, ModelEmaV3  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLE = torch.zeros(2, 3, 48, 48)


def target() -> torch.nn.Module:
    """A small ResNet of timm's, with its stochastic depth."""
    torch.manual_seed(0)
    return timm.create_model(
        "resnet10t", num_classes=5, stem_width=8, channels=(8, 8, 16, 16), drop_path_rate=0.1
    )


@pytest.fixture(scope="module")
def shrunk() -> torch.nn.Module:
    return graphscale.shrink(target(), EXAMPLE).train()


class Run:
    """The recipe; `args` travel in timm's checkpoints, and the state of growth with them."""

    def __init__(self, module: torch.nn.Module, folder: Path, opt: str = "adamw") -> None:
        self.args = argparse.Namespace(model="resnet10t", growth=None)
        self.model = copy.deepcopy(module)
        self.optimizer = create_optimizer_v2(self.model, opt=opt, lr=0.01, weight_decay=0.01)
        self.average = ModelEmaV3(self.model, decay=0.9)
        scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=4,
            warmup_epochs=1,
            warmup_lr=1e-3,
            step_on_epochs=False,
            updates_per_epoch=2,
        )
        scheduler.step_update(0)
        self.schedule = GrowthSchedule(
            self.model,
            total=4,
            grow_at=2,
            optimizers=self.optimizer,
            averages=self.average,
            resize_inputs=True,
        )
        self.rates = GrowthLR(self.schedule, self.optimizer, scheduler)
        self.saver = CheckpointSaver(
            self.model,
            self.optimizer,
            args=self.args,
            model_ema=self.average,
            checkpoint_dir=str(folder),
            recovery_dir=str(folder),
            max_history=9,
        )
        self.losses: list[float] = []

    def train(self) -> None:
        for epoch in self.schedule:
            torch.manual_seed(epoch)  # of stochastic depth
            for step in range(2):
                images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(step))
                loss = F.cross_entropy(self.model(images), torch.arange(4))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.average.update(self.model)
                self.rates.step_update(num_updates=2 * epoch + step + 1)
                self.losses.append(loss.item())
            assert self.average(images).shape == (4, 5)
            self.schedule.step()
            self.rates.step(epoch + 1, metric=0.5)
            self.args.growth = self.schedule.state_dict()
            self.saver.save_checkpoint(epoch, metric=float(epoch))

    def resume(self, path: Path) -> None:
        checkpoint = torch.load(path, weights_only=False)
        self.schedule.load_state_dict(checkpoint["args"].growth)
        epoch = resume_checkpoint(self.model, str(path), self.optimizer, weights_only=False)
        self.average.module.load_state_dict(checkpoint["state_dict_ema"])
        self.rates.step_update(2 * epoch)
        assert epoch == self.schedule.position


def test_recipe_and_resume(shrunk: torch.nn.Module, tmp_path: Path) -> None:
    whole = Run(shrunk, tmp_path)
    whole.train()
    assert repr(whole.model) == repr(target().train())
    assert repr(whole.average.module) == repr(target())
    json.dumps(whole.args.growth)
    second = tmp_path / "again"
    second.mkdir()
    for epoch in (0, 2):
        path = tmp_path / f"checkpoint-{epoch}.pth.tar"
        again = Run(shrunk, second)
        again.resume(path)
        again.train()
        assert again.losses == whole.losses[2 * (epoch + 1) :]
        for one, other in zip(again.model.parameters(), whole.model.parameters()):
            assert torch.equal(one, other)
    checkpoint = torch.load(tmp_path / "checkpoint-0.pth.tar", weights_only=False)
    grown = graphscale.grow(checkpoint["state_dict_ema"], target=target())
    assert repr(grown) == repr(target())


@pytest.mark.parametrize(
    "opt", ["lamb", "lion", "adan", "adabelief", "lookahead_momentum", "nadamw"]
)
def test_optimizers_grow_without_a_warning(opt: str, shrunk: torch.nn.Module, recwarn) -> None:
    model = copy.deepcopy(shrunk)
    optimizer = create_optimizer_v2(model, opt=opt, lr=1e-3)
    size = model.graphscale_plan.inputs[0].pretrain[2]
    images = torch.randn(4, 3, 48, 48)

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(x), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(2):
        step(resize_batch(images, size))
    recwarn.clear()
    grow_(model, optimizers=optimizer)
    assert [str(each.message) for each in recwarn if "no rule" in str(each.message)] == []
    for _ in range(7):
        assert step(images).isfinite()
