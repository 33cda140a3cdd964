"""Training is told in lines; a signal stops it after its step, a second one ends the command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from graphscale.cli.terminal import Terminal
from graphscale.cli.training_progress import TrainingProgress
from graphscale.training.run_folder import EpochRecord
from graphscale.training.trainer import Interrupted


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that reach the handlers that were there before."""
    signals: list[int] = []
    before = {
        number: signal.signal(number, lambda given, frame: signals.append(given))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


def trainer() -> SimpleNamespace:
    """What the progress uses of a trainer."""
    return SimpleNamespace(stop=False, options=SimpleNamespace(epochs=4))


def test_lines(capsys: pytest.CaptureFixture[str], received: list[int]) -> None:
    record = EpochRecord(2, 0, 44, 0.05, 0.25, 0.9, 0.3, 0.875, 1234.4, 61.2, 60.0)
    with TrainingProgress(Terminal()) as notices:
        notices.message("recipe late")
        notices.trainer(trainer())
        notices.images_checked(3, 10)
        notices.events.stage_started(0, 1, (44, 40))
        notices.events.batch_done(1, 2, 5)
        notices.events.epoch_done(record)
        notices.trainer(None)
    assert capsys.readouterr() == (
        "",
        "recipe late\n"
        "stage 1: images of 44×40, from epoch 2 on\n"
        "epoch   2    44 px  rate 0.05     loss 0.250  accuracy 87.5%  1234 images/s  61 s\n",
    )


def test_quiet(capsys: pytest.CaptureFixture[str], received: list[int]) -> None:
    with TrainingProgress(Terminal(quiet=True)) as notices:
        notices.message("recipe late")
        notices.events.stage_started(0, 0, (44, 44))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_trainer_and_is_raised_again_after_it(
    number: int, received: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    def train() -> None:
        running = trainer()
        with TrainingProgress(Terminal()) as notices:
            notices.trainer(running)
            os.kill(os.getpid(), number)
            assert running.stop
            assert received == []
            raise Interrupted

    with pytest.raises(Interrupted):
        train()
    assert received == [number]
    assert "--resume" in capsys.readouterr().err


def test_a_second_signal_and_one_before_the_training_end_the_command(received: list[int]) -> None:
    with TrainingProgress(Terminal()) as notices:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        notices.trainer(trainer())
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM, signal.SIGINT]


def test_the_handlers_are_restored_after_an_error(received: list[int]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def diverge() -> None:
        with TrainingProgress(Terminal()):
            assert signal.getsignal(signal.SIGINT) is not before
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        diverge()
    assert signal.getsignal(signal.SIGINT) is before
    assert received == []
