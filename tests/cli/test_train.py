"""graphscale train: the whole command on a small folder, interrupted and resumed, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphscale.cli import main
from tests.cli.signals import heed_signals
from tests.training.colour_images import write_red_and_blue

NETWORK = """
from torch import nn

def network(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 8 * 8, num_classes),
    )
"""
OPTIONS = [
    *("small_network:network", "--data", "images", "--image-size", "16", "--epochs", "4"),
    *("--batch", "8", "--rate", "0.02", "--augmentation", "crop", "--workers", "0"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue images."""
    folder = tmp_path_factory.mktemp("train")
    random = np.random.default_rng(0)
    write_red_and_blue(folder / "images", 24, random, noise=120, colour=100)
    (folder / "small_network.py").write_text(NETWORK)
    return folder


@pytest.fixture(autouse=True)
def _in_folder(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    monkeypatch.syspath_prepend(str(images))


def start(*options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "graphscale", "train", *OPTIONS, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_signals
    )


def history(folder: str, result: int = 0) -> list[dict]:
    report = json.loads((Path(folder) / "result.json").read_text())
    timed = ("seconds", "processor_seconds", "images_per_second")
    return [
        {key: value for key, value in epoch.items() if key not in timed}
        for epoch in report["results"][result]["epochs"]
    ]


def test_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "-o", "whole", "--baseline"]) == 0
    out = capsys.readouterr().out
    assert "late" in out
    assert "saved" in out or "slower" in out  # so small a network trains as fast as it grows
    files = {each.name for each in Path("whole").iterdir()}
    wanted = {"model.onnx", "curves.png", "result.json", "log.csv", "last.pt", "best.pt"}
    assert wanted <= files
    onnx.checker.check_model("whole/model.onnx", full_check=True)
    model = onnx.load("whole/model.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:] == [3, 16, 16]
    assert history("whole")[-1]["accuracy"] >= 0.9
    assert len(Path("whole/log.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_resuming_after_a_signal_is_bit_for_bit(signal_number: int) -> None:
    name = signal.Signals(signal_number).name
    assert main(["train", *OPTIONS, "-o", f"straight-{name}", "--quiet"]) == 0
    process = start("-o", name)
    for line in process.stderr:
        if line.startswith("epoch   2"):
            process.send_signal(signal_number)
            break
    rest = process.communicate(timeout=120)[1]
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in rest
    assert main(["train", *OPTIONS, "-o", name, "--resume", "--quiet"]) == 0
    assert history(name) == history(f"straight-{name}")


def test_workers_change_nothing() -> None:
    assert main(["train", *OPTIONS, "-o", "alone", "--quiet"]) == 0
    assert main(["train", *OPTIONS, "-o", "workers", "--quiet", "--workers", "2"]) == 0
    assert history("workers") == history("alone")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(precision: str) -> None:
    assert main(["train", *OPTIONS, "-o", precision, "--quiet", "--precision", precision]) == 0
    assert history(precision)[-1]["accuracy"] >= 0.9


def test_baseline_is_resumed_bit_for_bit() -> None:
    assert main(["train", *OPTIONS, "-o", "both", "--quiet", "--baseline"]) == 0
    process = start("-o", "parted", "--baseline")
    epochs = 0
    for line in process.stderr:
        epochs += line.startswith("epoch   2")
        if epochs == 2:  # the second one is the baseline's
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=120)
    assert main(["train", *OPTIONS, "-o", "parted", "--resume", "--quiet"]) == 0
    assert history("parted") == history("both")
    assert history("parted", 1) == history("both", 1)


def test_the_model_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    Path("own/model.onnx").write_bytes(b"a model")
    assert main(["train", "own/model.onnx", "--data", "images", "-o", "own"]) == 2
    assert "own/model.onnx would be written, but it is read, too" in capsys.readouterr().err
    assert Path("own/model.onnx").read_bytes() == b"a model"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["small_network:network"], "--data is missing"),
        (["small_network:network", "--data", "nowhere"], "nowhere: is not a folder"),
        (["small_network:nothing", "--data", "images", "--image-size", "16"], "cannot be imported"),
        (["small_network:network", "--data", "images"], "--image-size"),
        (["absent.onnx", "--data", "images"], "absent.onnx"),
        ([*OPTIONS, "--batch", "1000", "-o", "a"], "smaller --batch"),
        ([*OPTIONS, "--epochs", "1", "-o", "b"], "more epochs"),
        ([*OPTIONS, "--recipe", "paper", "-o", "c"], "--schedule steps"),
        ([*OPTIONS, "--resume", "-o", "never"], "no training to go on with"),
        ([*OPTIONS, "--image-size", "wide", "-o", "d"], "--image-size wide"),
        ([*OPTIONS, "--device", "abacus", "-o", "e"], "--device cpu"),
        ([*OPTIONS, "--device", "meta", "-o", "f"], "'meta' cannot be used"),
        ([*OPTIONS, "--data", "n" * 300], "cannot be"),
    ],
)
def test_unusable_input_is_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error


def test_broken_image_is_named_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Path("images/red/broken.png")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    try:
        assert main(["train", *OPTIONS, "--quiet", "-o", "broken"]) == 2
    finally:
        broken.unlink()
    assert "broken.png: cannot be trained on" in capsys.readouterr().err
    assert not Path("broken").exists()


def test_second_training_does_not_replace_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "--recipe", "target", "-o", "first", "--quiet"]) == 0
    before = Path("first/last.pt").read_bytes()
    assert main(["train", *OPTIONS, "--recipe", "target", "-o", "first", "--quiet"]) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert Path("first/last.pt").read_bytes() == before


def export(size: str) -> None:
    """An ONNX file of a small network for grey images of `size`."""
    made = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 1, {size}] x) => (float[N, 2] y) {{
            c = Conv <strides = [2, 2], pads = [2, 2, 2, 2]> (x, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = Gemm (f, fc)
        }}"""
    )
    random = np.random.default_rng(0)
    for name, shape in (("w", (4, 1, 5, 5)), ("fc", (4, 2))):
        weight = random.standard_normal(shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(made, "file.onnx")


def train_file(*options: str) -> int:
    return main(
        ["train", "file.onnx", "--data", "images", "--batch", "8", "--workers", "0", *options]
    )


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
@pytest.mark.parametrize("recipe", ["late", "progressive"])
def test_file_of_open_size(recipe: str) -> None:
    export("H, W")
    options = ("--image-size", "16", "--epochs", "5", "--recipe", recipe, "-o", f"open-{recipe}")
    assert train_file(*options) == 0
    shape = onnx.load(f"open-{recipe}/model.onnx").graph.input[0].type.tensor_type.shape
    assert [each.dim_param for each in shape.dim] == ["N", "", "H", "W"]


def test_size_that_a_file_does_not_say_or_cannot_take(capsys: pytest.CaptureFixture[str]) -> None:
    export("H, W")
    assert train_file("-o", "unsaid") == 2
    assert "give it with --image-size" in capsys.readouterr().err
    export("16, 16")
    assert train_file("-o", "other", "--image-size", "24") == 2
    assert "takes images of 16×16" in capsys.readouterr().err


def test_exporter_is_quiet() -> None:
    process = start("-o", "quiet", "--recipe", "target")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert "torch" not in said
    assert "Warning" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch", "0"), "--batch 0: give at least one"),
        (("--workers", "-1"), "--workers -1: give 0 or more"),
        (("--rate", "nan"), "--rate nan: give 0 or more"),
        (("--momentum", "1"), "--momentum 1.0: give 0 or more"),
        (("--weight-decay", "-1"), "--weight-decay -1.0: give 0 or more"),
        (("--label-smoothing", "3"), "--label-smoothing 3.0: give 0 or more"),
        (("--epochs", "9" * 400), "99: give a number from 1 to 1000000"),
        (("--warm-up", "nan"), "--warm-up nan: give 0 or more"),
        (("--weight-decay-until", "-2"), "--weight-decay-until -2: give a number from 0"),
        (("--seed", "-1"), "--seed -1: give a number from 0 to 4294967295"),
        (("--image-size", "9" * 5000), "give height and width"),
        (("--image-size", "16385"), "give height and width, as in 224 or 224x192, up to 16384"),
    ],
)
def test_numbers_out_of_range(
    options: tuple, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *OPTIONS, *options, "-o", "ranges"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("callable_", "said"),
    [
        ("faulty_syntax:make", "cannot be imported"),
        ("faulty:make", "makes no network"),
        ("faulty:two", "makes no network"),
        ("faulty:NUMBER", "not a function"),
    ],
)
def test_faulty_callables(callable_: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("faulty_syntax.py").write_text("def make(:\n")
    Path("faulty.py").write_text(
        "NUMBER = 3\ndef make():\n    raise RuntimeError('boom')\ndef two(a, b):\n    pass\n"
    )
    assert main(["train", callable_, *OPTIONS[1:], "-o", "faulty"]) == 2
    assert said in capsys.readouterr().err
