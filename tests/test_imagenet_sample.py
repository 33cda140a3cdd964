"""samples/imagenet.py learns red from blue pictures in every container, and resumes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.ranks import on_ranks
from tests.training.colour_images import write_red_and_blue

SAMPLE = Path(__file__).parents[1] / "samples" / "imagenet.py"
CONTAINERS = ("data-parallel", "one-bit", "one-bit-sgd", "model-parallel", "pipeline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        write_red_and_blue(folder / part, count, random, noise=100, colour=120, size=(40, 44))
    return folder


def in_rank(rank: int, arguments: list[str]) -> float:
    spec = importlib.util.spec_from_file_location("imagenet", SAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(arguments)


@pytest.mark.parametrize("container", CONTAINERS)
def test_container(container: str, folder: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    arguments = [str(folder), f"--{container}", "--checkpoint", str(checkpoint), "--workers", "0"]
    arguments += ["--size", "32", "--width", "4", "--batch", "8", "--rate", "0.05"]
    arguments += ["--warm-up", "3"]
    on_ranks(2, in_rank, [*arguments, "--epochs", "5"], torchrun=True)
    answers = on_ranks(
        1 if container == "one-bit" else 2,
        in_rank,
        [*arguments, "--epochs", "8", "--resume"],
        torchrun=True,
    )
    assert set(answers) == {1.0}


def refused_in_rank(rank: int, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="cannot be shared by 2 ranks from 16 pictures"):
        in_rank(rank, arguments)


@pytest.mark.parametrize("batch", ["7", "18"])
def test_a_batch_that_cannot_be_shared(batch: str, folder: Path) -> None:
    on_ranks(2, refused_in_rank, [str(folder), "--batch", batch, "--workers", "0"], torchrun=True)
