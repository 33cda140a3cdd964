"""Train three networks by many recipes and seeds; one JSON file per training.

    python benchmarks/training/run.py                       everything that is still missing
    python benchmarks/training/run.py --networks resnet --variants target late --seeds 0
    python benchmarks/training/costs.py                     what a step costs in each stage
    python benchmarks/training/summary.py                   tables and the figure

A training whose file exists is not run again; an interrupted one continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import clothes
import glyphs
import torch
from networks import NETWORKS
from scenes import SIZE
from variants import VARIANTS, stage_name

import graphscale
from graphscale.core.files import replacing
from graphscale.training.image_batches import TensorBatches
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.rescaled_networks import RescaledNetworks
from graphscale.training.run_folder import RunFolder
from graphscale.training.trainer import Events, Trainer, TrainingOptions

sys.path.append(str(Path(__file__).parents[1]))
from turns import processor

ROOT = Path(__file__).parent
RESULTS = ROOT.parent / "results" / "training"
CACHE = ROOT.parents[1] / "build" / "training"
EPOCHS = 12
CLASSES = {"glyphs": glyphs.CLASSES, "clothes": clothes.CLASSES}


def main() -> None:
    """Run the trainings whose files are missing."""
    options = _options()
    torch.set_num_threads(options.threads)
    data = _data(options.data, options.train, options.test)
    for seed in options.seeds:
        for variant in options.variants:
            for network in options.networks:
                _train(data, network, variant, seed, options)


def _train(data, network: str, name: str, seed: int, options) -> None:
    file = options.out / f"{options.data}-{network}-{name}-{seed}.json"
    if file.exists():
        return
    variant = VARIANTS[name]
    epochs = max(2, round(variant.share * options.epochs))
    torch.manual_seed(seed)
    target = NETWORKS[network](1, len(CLASSES[options.data]))
    recipe = variant.recipe
    example = torch.zeros(1, 1, SIZE, SIZE)
    networks = RescaledNetworks(target, example, recipe, seed, **variant.growth)
    batches = TensorBatches(*data, batch=64, seed=seed)
    training = TrainingOptions(
        epochs=epochs,
        rate=options.rate,
        schedule=RateSchedule(variant.schedule, warm_up=0.5 / epochs),
        seed=seed,
    )
    folder = RunFolder(CACHE / file.stem)
    folder.path.mkdir(parents=True, exist_ok=True)

    def finished(record) -> None:
        print(
            f"{file.stem}: epoch {record.epoch} at {record.image_size}, rate {record.rate:.3g}, "
            f"loss {record.train_loss:.3f}, accuracy {record.accuracy:.2%}, "
            f"{record.seconds:.0f} s ({record.processor_seconds:.0f} s of processors)",
            flush=True,
        )

    trainer = Trainer(
        networks, batches, recipe, training, folder, events=Events(epoch_done=finished)
    )
    trainer.run(folder.load())
    report = {
        "data": options.data,
        "network": network,
        "variant": name,
        "seed": seed,
        "accuracy": trainer.records[-1].accuracy,
        "seconds": trainer.records[-1].seconds,
        "processor_seconds": trainer.records[-1].processor_seconds,
        "epochs": [asdict(record) for record in trainer.records],
        "options": asdict(training),
        "stages": [stage_name(each) for each in recipe.stages],
        "ends": trainer.ends,
        "train_images": len(data[0][1]),
        "test_images": len(data[1][1]),
        "device": f"{options.threads} threads of {processor()}",
        "versions": {"graphscale": graphscale.__version__, "torch": torch.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with replacing(file) as (part,):
        part.write((json.dumps(report, indent=1) + "\n").encode())


def _data(name: str, train: int, test: int):
    """The images, float32 of zero mean and unit deviation; made once and kept in build/."""
    path = CACHE / f"{name}-{train}-{test}.pt"
    if path.exists():
        sets = torch.load(path, weights_only=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = (
            clothes.clothes(train, test, CACHE) if name == "clothes" else glyphs.glyphs(train, test)
        )
        sets = [[torch.from_numpy(each) for each in part] for part in made]
        torch.save(sets, path)
    images = sets[0][0].float()
    mean, deviation = images.mean(), images.std()
    return [((images.float() - mean) / deviation, labels) for images, labels in sets]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", default="glyphs", choices=CLASSES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--train", type=int, default=10000, help="training images")
    parser.add_argument("--test", type=int, default=5000, help="test images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
