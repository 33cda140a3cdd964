"""The printed tables: every number stands under its name, in UTF-8 and in ASCII."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from graphscale.acceleration.accelerate_model import RUNTIME, Acceleration, LayerChoice
from graphscale.cli.tables import show_acceleration, show_growth, show_plan, show_trainings
from graphscale.core.plan import InputPlan, LayerPlan, Plan, WeightPlan
from graphscale.passes.grow.grow_graph import Growth
from graphscale.rescaling.fidelity import Fidelity


def shown(show, *arguments: object, encoding: str = "utf-8") -> list[str]:
    """The lines that a function prints, with runs of blanks as one blank."""
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, highlight=False, width=120)
    show(*(console if each is Console else each for each in arguments))
    file.flush()
    text = file.buffer.getvalue().decode(encoding)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


PLAN = Plan(
    inputs=[InputPlan("x", ["N", 3, 64, 64], ["N", 3, 44, 44], [1, 3, 64, 64], [2, 3])],
    layers=[
        LayerPlan("first", "w", "Conv", [7, 7], [5, 5], [32, 32], [22, 22], 3_200_000, 800_000),
        LayerPlan("same", "v", "Conv", [1, 1], [1, 1], [8, 8], [8, 8], 2_000, 2_000, "it is 1×1"),
        LayerPlan("head", "u", "Gemm", [], [], [], [], 640, 640),
    ],
    weights=[WeightPlan("w", "kernel", [[(8, 8)], [(3, 3)], [(7, 5)], [(7, 5)]])],
    folded=["v"],
    resolved_ifs=["a", "b"],
    init="resize",
)


def test_plan() -> None:
    lines = shown(show_plan, PLAN, Console, "a.onnx")
    assert lines == [
        "layer kernel size multiplications ratio",
        "first 7×7 → 5×5 32×32 → 22×22 3.2 M → 800 k 4.00",
        "same 1×1 8×8 2 k → 2 k 1.00",
        "head Gemm 640 → 640 1.00",
        "left unscaled because layers",
        "it is 1×1 same",
        "folded 1 weights that nodes computed are initializers now",
        "decided 2 If nodes, whose branch the shapes decide",
        "weights resized from the target's",
        "input x: N×3×64×64 → N×3×44×44",
        "convolutions: 3.2 M → 802 k multiplications per image, predicted ratio 3.99",
        "all layers: 3.2 M → 803 k multiplications per image, predicted ratio 3.99",
        "written a.onnx",
    ]


def test_ascii_has_the_same_words() -> None:
    lines = shown(show_plan, PLAN, Console, None, encoding="ascii")
    assert lines[1] == "first 7x7 -> 5x5 32x32 -> 22x22 3.2 M -> 800 k 4.00"
    assert lines[-1].startswith("all layers")  # no file was written


def test_growth() -> None:
    growth = Growth(["w"], ["v", "u"], untied=["t"], renamed={"w": "onnx::Conv_12"})
    fidelity = [Fidelity("y", 0.25, 0.9, 0.5, 16), Fidelity("z", 0.125, 0.75, None, 16)]
    assert shown(show_growth, growth, PLAN, fidelity, Console, "b.onnx") == [
        "weight kind pre-train shape target shape",
        "w kernel 8×3×5×5 8×3×7×7",
        "resized 1, copied 2",
        "untied 1 weights that layers shared in the target file and learned apart",
        "matched by structure: w ← onnx::Conv_12",
        "check y: relative difference 0.250, correlation 0.900, same top class 50% (16 images)",
        "check z: relative difference 0.125, correlation 0.750 (16 images)",
        "written b.onnx",
    ]


def test_acceleration() -> None:
    layers = [
        LayerChoice("big", [9, 9], [1, 4, 64, 64], "dense", {RUNTIME: 0.25, "dense": 0.0625}),
        LayerChoice("small", [3, 3], [1, 4, 8, 8], RUNTIME, {RUNTIME: 1e-4}, "a copy costs more"),
        LayerChoice("inner", [], [], RUNTIME, {}, "it is inside a branch"),
    ]
    result = Acceleration(layers, 1.5e-6, before=0.5, after=0.3125)
    assert shown(show_acceleration, result, Console, None) == [
        "layer kernel input before after path",
        "big 9×9 1×4×64×64 250 ms 62.5 ms dense",
        f"small 3×3 1×4×8×8 0.1 ms 0.1 ms {RUNTIME}: a copy costs more",
        f"left to {RUNTIME} because layers",
        "it is inside a branch inner",
        "whole model: 500 ms → 312 ms, outputs differ by 1.5e-06",
    ]


@pytest.mark.parametrize("path", [RUNTIME, "dense"])
def test_a_model_that_stays(path: str) -> None:
    layer = LayerChoice("one", [3, 3], [1, 4, 8, 8], path, {RUNTIME: 0.002, "dense": 0.001})
    *_, said = shown(show_acceleration, Acceleration([layer]), Console, None)
    assert said.endswith("here; the model is unchanged")
    assert ("no convolution is faster" in said) == (path == RUNTIME)


def result(recipe: str, seconds: float, accuracy: float, sizes: tuple[int, ...]) -> SimpleNamespace:
    """What the table reads of a `TrainingResult`, whose module imports torch."""
    records = [SimpleNamespace(image_size=size, accuracy=accuracy) for size in sizes]
    records[0].accuracy = 0.9
    return SimpleNamespace(recipe=recipe, seconds=seconds, accuracy=accuracy, records=records)


@pytest.mark.parametrize(
    ("seconds", "training", "sentence"),
    [
        (90.0, "90 s", "saved 25% of the training time, accuracy +1.50 points"),
        (240.0, "4 min", "slower took 2.0 times the baseline's time, accuracy +1.50 points"),
        (3700.0, "1 h 02 min", "slower took 30.8 times the baseline's time, accuracy +1.50 points"),
    ],
)
def test_trainings(seconds: float, training: str, sentence: str) -> None:
    late = result("late", seconds, 0.875, (44, 44, 64))
    target = result("target", 120.0, 0.86, (64, 64, 64))
    assert shown(show_trainings, [late, target], Path("out"), Console) == [
        "recipe accuracy best training epochs by image size",
        f"late 87.50% 90.00% {training} 2 at 44, 1 at 64",
        "target 86.00% 90.00% 2 min 3 at 64",
        sentence,
        "written out/model.onnx, curves.png, result.json, log.csv",
    ]
