"""Train one target network twice: from scratch, and by shrink, train, grow, train on.

    python samples/digits.py                    handwritten digits in clutter
    python samples/digits.py --images FOLDER    one sub-folder of images per class

A table and a plot compare accuracy and training time. All files are written into the folder demo/
(--output for another). Where three seeds fit into five minutes, two more follow, in sub-folders.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from chart import draw
from labelled_images import LabelledImages, digits, folder
from table import show
from target import KERNELS, PRETRAIN_SIZE, SIZE, export, target_network
from training import Record, accuracy, train

import graphscale

# The learning rate of each epoch: of the target from scratch, of the pre-train network, and of the
# grown network. Growth comes late, with the rate still at its full height, which decays after it.
SCRATCH_RATES = [0.05] * 5 + [0.01] * 4 + [0.001]
PRETRAIN_RATES = [0.05] * 7
GROWN_RATES = [0.042, 0.025, 0.008]

MAX_SEEDS = 3
MAX_SECONDS = 300.0  # in which all seeds must fit, by the time of the first


def main() -> None:
    """Run both trainings, with more seeds where there is time, and show their results."""
    options = _options()
    _quiet_exporter()
    started = time.perf_counter()
    gains = {options.seed: compare(options.seed, options.images, options.output)}
    seconds = time.perf_counter() - started
    if MAX_SEEDS * seconds > MAX_SECONDS:
        print(f"one seed took {seconds:.0f} s: {MAX_SEEDS} do not fit into {MAX_SECONDS:.0f} s")
        return
    for seed in range(options.seed + 1, options.seed + MAX_SEEDS):
        print(f"\n\nseed {seed}")
        gains[seed] = compare(seed, options.images, options.output / f"seed_{seed}")
    each = ", ".join(f"{seed}: {gain:+.1f}" for seed, gain in gains.items())
    print(f"\naccuracy of the grown network less the target's, points, by seed: {each}")


def compare(seed: int, images: Path | None, output: Path) -> float:
    """Run both trainings of a seed, show them, and return how many points growth gains.

    The seed decides the split and clutter of the images, too; without `images` they are digits.
    """
    torch.manual_seed(seed)
    data, test, classes = folder(images, SIZE) if images else digits(SIZE)
    print(
        f"{len(data.labels)} images of {len(classes)} classes to train on, "
        f"{len(test.labels)} to test; {torch.get_num_threads()} threads"
    )
    output.mkdir(parents=True, exist_ok=True)
    target = output / "target.onnx"
    channels = data.images.shape[1]
    export(target_network(channels, len(classes)), target, channels)

    print("\ntarget from scratch")
    scratch = Record()
    train(graphscale.load(target), data, test, SCRATCH_RATES, scratch)

    rescaled, kernels = rescale(target, data, test)

    growth = len(PRETRAIN_RATES)
    show(_plan(target), scratch, rescaled, growth)
    final = output / "trained.onnx"
    print(f"{final} in onnxruntime: {_onnxruntime_accuracy(final, test):.1%}")
    draw(output / "demo.png", scratch, rescaled, growth, kernels)
    print(f"plot: {output / 'demo.png'}")
    return 100 * (rescaled.accuracy[-1] - scratch.accuracy[-1])


def rescale(
    target: Path, data: LabelledImages, test: LabelledImages
) -> tuple[Record, dict[str, torch.Tensor]]:
    """Shrink, train, grow, train on; return the record and the first kernels of each stage."""
    record = Record()
    started = time.perf_counter()
    kernels = ",".join(f"{size}:{pretrain}" for size, pretrain in KERNELS.items())
    _command("shrink", target, "--input-size", PRETRAIN_SIZE, "--kernels", kernels)
    pretrain_file = target.with_name("target.pretrain.onnx")
    size = _plan(target).inputs[0].pretrain[-1]
    small, small_test = data.resized(size), test.resized(size)
    rescaling = time.perf_counter() - started

    print(f"\npre-train network, images of {size}×{size}")
    pretrain = graphscale.load(pretrain_file)
    train(pretrain, small, small_test, PRETRAIN_RATES, record)

    started = time.perf_counter()
    checkpoint = target.with_name("checkpoint.onnx")
    graphscale.save(pretrain, checkpoint)
    _command("grow", checkpoint)
    grown = graphscale.load(target.with_name("checkpoint.grown.onnx"))
    kernels = {"pre-train": _first_kernels(pretrain), "grown": _first_kernels(grown)}
    record.add(rescaling + time.perf_counter() - started, accuracy(grown, test))

    print(f"\ngrown network, accuracy {record.accuracy[-1]:.1%} before it is trained on")
    train(grown, data, test, GROWN_RATES, record)
    graphscale.save(grown, target.with_name("trained.onnx"))
    return record, kernels | {"trained on": _first_kernels(grown)}


def _plan(target: Path) -> graphscale.Plan:
    """The plan that `graphscale shrink` wrote beside the pre-train network."""
    return graphscale.Plan.from_file(target.with_name("target.pretrain.plan.json"))


def _command(*arguments: object) -> None:
    words = [str(each) for each in arguments]
    print("\n$ graphscale", *words, flush=True)
    # -P: import the installed package, not a folder named graphscale in the working directory.
    if subprocess.run([sys.executable, "-P", "-m", "graphscale", *words]).returncode:
        raise SystemExit(f"graphscale {words[0]} failed; its message is above")


def _first_kernels(network: torch.nn.Module) -> torch.Tensor:
    return next(weight for weight in network.parameters() if weight.ndim == 4).detach().clone()


def _onnxruntime_accuracy(path: Path, test: LabelledImages) -> float:
    session = graphscale.session(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"images": test.images.numpy()})
    return (scores.argmax(1) == test.labels.numpy()).mean()


def _quiet_exporter() -> None:
    """Hide torch's notes on optional packages, deprecated calls and an export for training."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "Exporting a model while it is in training mode")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a network from scratch, and by shrink, train, grow, train on."
    )
    parser.add_argument("--images", type=Path, help="a folder, one sub-folder of images per class")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="default: demo")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
