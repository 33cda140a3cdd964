"""The callback in Lightning's own Trainer."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import graphscale

pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint  # noqa: E402

from graphscale.training import Plateau  # noqa: E402
from graphscale.training.lightning import GrowthCallback  # noqa: E402

from .small_networks import shrunk, target  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("quiet"),
]


@pytest.fixture
def quiet() -> None:
    import logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = shrunk()
        self.seen: list[tuple[int, ...]] = []
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.scores = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6]

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        self.seen.append(tuple(self.model.first.weight.shape[2:]))
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        assert self.model(batch[0]).shape[1:] == (5,)
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], 0.1)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(8) % 5), 4)


def fit(folder: Path, growth: GrowthCallback, epochs: int = 6, callbacks=(), **options):
    torch.manual_seed(0)
    module = Classifier()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        default_root_dir=folder,
        callbacks=[growth, *callbacks],
    )
    trainer.fit(module, loader(), loader(), **options)
    return module, trainer


def test_grows_at_its_epoch(tmp_path: Path) -> None:
    averaging = EMAWeightAveraging(decay=0.5)
    growth = GrowthCallback(grow_at=3, after="restart", decay="steps", warmup=0)
    module, _ = fit(tmp_path, growth, callbacks=[averaging])
    assert module.seen == [(5, 5)] * 6 + [(7, 7)] * 6
    assert module.rates == pytest.approx(
        [0.05] * 4 + [0.005] * 2 + [0.05] * 2 + [0.01] * 2 + [0.001] * 2
    )
    assert repr(module.model) == repr(target())
    assert module.model(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_as_scheduled(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, GrowthCallback(grow_at=1), epochs=3)
    assert module.seen == [(5, 5)] * 2 + [(7, 7)] * 4
    assert module.rates == pytest.approx([0.05] * 4 + [0.005] * 2)


def test_at_a_plateau(tmp_path: Path) -> None:
    growth = GrowthCallback(grow_at=Plateau(patience=2, latest=1.0), monitor="score")
    module, _ = fit(tmp_path, growth)
    assert growth.schedule.grown_at == [4]
    assert module.seen == [(5, 5)] * 8 + [(7, 7)] * 4
    growth = GrowthCallback(grow_at=Plateau(), monitor="accuracy")
    with pytest.raises(graphscale.GraphScaleError, match="'accuracy' is not logged"):
        fit(tmp_path, growth)


@pytest.mark.parametrize("last", [2, 3, 5])
def test_resumes_on_either_side(last: int, tmp_path: Path) -> None:
    def callback() -> GrowthCallback:
        return GrowthCallback(grow_at=3, after="restart")

    keeper = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, monitor="score")
    whole, _ = fit(tmp_path, callback(), callbacks=[keeper])
    path = tmp_path / f"epoch={last - 1}.ckpt"
    checkpoint = torch.load(path, weights_only=False)
    grown = last > 3
    assert (graphscale.Plan.of(checkpoint) is None) == grown
    if not grown:
        alone = graphscale.grow(checkpoint, target=target())
        assert repr(alone) == repr(target())
    again, _ = fit(tmp_path, callback(), ckpt_path=path)
    assert again.seen == whole.seen[2 * last :]
    assert again.rates == pytest.approx(whole.rates[2 * last :])
    assert again.losses == whole.losses[2 * last :]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(graphscale.GraphScaleError, match="no module 'net'"):
        fit(tmp_path, GrowthCallback("net", grow_at=3))
    with pytest.raises(graphscale.GraphScaleError, match="no max_epochs"):
        fit(tmp_path, GrowthCallback(grow_at=3), epochs=-1)
    module = Classifier()
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False)
    with pytest.raises(graphscale.GraphScaleError, match="use strategy='ddp'"):
        GrowthCallback(grow_at=3).setup(trainer, module, "fit")
