"""Accuracy after training with one bit per gradient element: python benchmarks/one_bit_accuracy.py

Claim: gradients in one bit train a convolutional network on real pictures to the accuracy of dense
ones, within a point. The pictures are scikit-learn's 1,797 scans of handwritten digits; every
fourth is for training and the others for testing, so that the networks have faults to differ in.
Two gloo processes share each batch. Beside dense gradients and one bit runs torch's PowerSGD;
everything but the hook is the same, and so are the seeds.

Each run takes some seconds; results/one_bit_accuracy.json keeps what is done, and only what is
missing runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from turns import record

from graphscale.distributed import OneBitState, one_bit_hook

RESULTS = Path(__file__).parent / "results" / "one_bit_accuracy.json"
PART = "accuracy on digits"
WAYS = ("dense", "one bit", "PowerSGD 1")
SEEDS = (0, 1, 2)
RANKS, BATCH, EPOCHS, RATE = 2, 32, 12, 0.03


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1797, 1, 8, 8] and their classes."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = torch.tensor(scans.images, dtype=torch.float32)[:, None] / 8 - 1
    return images, torch.tensor(scans.target)


def network() -> nn.Module:
    """57,000 weights, nearly all in layers that go in one bit."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        *(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, bias=False)),
        *(nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(32 * 16, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def trained(way: str, seed: int, rank: int) -> tuple[float, float]:
    """Accuracy in percent and cross entropy on the test images."""
    images, labels = digits()
    is_test = torch.arange(len(images)) % 4 != 0
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    ddp = DistributedDataParallel(network())
    train, train_labels = images[~is_test], labels[~is_test]
    steps = len(train) // BATCH
    if way == "one bit":  # dense in the first epoch, as in graphscale train
        ddp.register_comm_hook(OneBitState(ddp, warm_up_steps=steps), one_bit_hook)
    elif way != "dense":
        state = powerSGD_hook.PowerSGDState(
            None, matrix_approximation_rank=int(way.split()[1]), start_powerSGD_iter=steps
        )
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    optimizer = torch.optim.SGD(
        ddp.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    for _ in range(EPOCHS):
        chosen = torch.randperm(len(train), generator=order)[: steps * BATCH]
        for batch in chosen.view(steps, BATCH):
            own = batch[rank::RANKS]
            loss = nn.functional.cross_entropy(ddp(train[own]), train_labels[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    ddp.eval()
    with torch.no_grad():
        scores = ddp.module(images[is_test])
    hits = scores.argmax(1) == labels[is_test]
    loss = nn.functional.cross_entropy(scores, labels[is_test])
    return 100 * hits.double().mean().item(), loss.item()


def run_rank(rank: int, meeting: str, way: str, seed: int, answer: int) -> None:
    """In a process of its own: train, and write the results as the first rank."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{meeting}", world_size=RANKS, rank=rank, timeout=timedelta(minutes=10)
    )
    found = trained(way, seed, rank)
    if rank == 0:
        os.write(answer, json.dumps(found).encode())
    distributed.destroy_process_group()


def run(way: str, seed: int) -> tuple[float, float]:
    """Accuracy and loss of one training on all ranks."""
    receive, answer = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(RANKS):
            if os.fork() == 0:
                run_rank(rank, f"{folder}/meeting", way, seed, answer)
                os._exit(0)
        if any(os.wait()[1] for _ in range(RANKS)):
            sys.exit("a rank has failed")
    return tuple(json.loads(os.read(receive, 100)))


def points() -> list[dict]:
    """What is done."""
    return json.loads(RESULTS.read_text())[PART]["points"] if RESULTS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    for seed in parser.parse_args().seeds:
        for way in WAYS:
            if not any((each["way"], each["seed"]) == (way, seed) for each in points()):
                accuracy, loss = run(way, seed)
                point = {"way": way, "seed": seed, "accuracy": accuracy, "loss": loss}
                record(RESULTS, PART, [*points(), point])
    for way in WAYS:
        found = [each["accuracy"] for each in points() if each["way"] == way]
        if found:
            each = ", ".join(f"{accuracy:.2f} %" for accuracy in found)
            print(f"{way}: {each}; on average {sum(found) / len(found):.2f} %")


if __name__ == "__main__":
    main()
