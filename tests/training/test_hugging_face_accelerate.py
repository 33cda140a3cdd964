"""The recipe for Hugging Face Accelerate, run with the library itself."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import graphscale
from graphscale.training import GrowthLR, GrowthSchedule, resize_batch
from graphscale.training.hugging_face_accelerate import keep_growth

from .small_networks import shrunk, target

accelerate = pytest.importorskip("accelerate")

pytestmark = pytest.mark.filterwarnings("ignore")


class Run:
    """The recipe, with a state saved after every epoch."""

    def __init__(self, folder: Path) -> None:
        accelerate.state.AcceleratorState._reset_state(True)
        self.accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        self.folder = folder
        model = shrunk()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], 0.1)
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(TensorDataset(images, torch.arange(8) % 5), 2)
        self.model, self.optimizer, self.loader, scheduler = self.accelerator.prepare(
            model, optimizer, loader, scheduler
        )
        self.schedule = GrowthSchedule(self.model, total=5, grow_at=3, optimizers=self.optimizer)
        self.rates = GrowthLR(self.schedule, self.optimizer, scheduler, after="restart")
        keep_growth(self.accelerator, self.schedule)
        self.accelerator.register_for_checkpointing(self.rates)
        self.losses: list[float] = []

    def train(self) -> None:
        for epoch in self.schedule:
            for images, labels in self.loader:
                with self.accelerator.accumulate(self.model):
                    images = resize_batch(images, self.schedule.image_size)
                    loss = F.cross_entropy(self.model(images), labels)
                    self.accelerator.backward(loss)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                self.losses.append(loss.item())
            self.schedule.step()
            self.rates.step()
            self.accelerator.save_state(self.folder / str(epoch + 1))


def test_recipe_and_resume(tmp_path: Path) -> None:
    whole = Run(tmp_path)
    whole.train()
    model = whole.accelerator.unwrap_model(whole.model)
    assert repr(model) == repr(target())
    for epoch in (2, 3, 4):
        again = Run(tmp_path / "again")
        again.accelerator.load_state(tmp_path / str(epoch))
        again.train()
        assert again.losses == whole.losses[4 * epoch :]
        for one, other in zip(again.model.parameters(), whole.model.parameters()):
            assert torch.equal(one, other)


def test_a_state_without_growth(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.accelerator.save_state(tmp_path / "state")
    (tmp_path / "state" / "graphscale_growth.json").unlink()
    with pytest.raises(graphscale.GraphScaleError, match="holds no state of growth"):
        run.accelerator.load_state(tmp_path / "state")
