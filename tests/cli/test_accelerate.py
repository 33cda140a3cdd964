"""graphscale accelerate: its options and its table. Measuring is tested in tests/acceleration."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from graphscale.acceleration.accelerate_model import Acceleration, LayerChoice
from graphscale.cli.command_line import main

SLOW = LayerChoice("conv_0", [5, 5], [1, 3, 64, 64], "onnxruntime", {"onnxruntime": 0.25})
FAST = LayerChoice(
    "conv_4", [3, 3], [1, 16, 32, 32], "direct", {"onnxruntime": 0.02, "direct": 0.001}
)
LEFT = LayerChoice("conv_7", [3, 3], [1, 16, 16, 16], reason="it is too small")


@pytest.fixture
def asked(monkeypatch) -> list[dict[str, object]]:
    """The options of each call of accelerate_model, which measures nothing here."""
    calls: list[dict[str, object]] = []

    def accelerate_model(model: object, **options: object) -> Acceleration:
        calls.append(options)
        return Acceleration([SLOW, FAST, LEFT], 1e-6, 0.3, 0.2)

    monkeypatch.setattr(
        "graphscale.acceleration.accelerate_model.accelerate_model", accelerate_model
    )
    return calls


def test_table_and_file(target: Path, asked, capsys) -> None:
    assert main(["accelerate", str(target)]) == 0
    out, err = capsys.readouterr()
    for text in ("5×5", "250 ms", "20 ms", "1 ms", "direct", "it is too small", "300 ms → 200 ms"):
        assert text in out
    assert out.endswith(f"written {target.with_suffix('.accelerated.onnx')}\n")
    assert err == ""
    assert asked[0]["batch"] == 1


def test_dry_run_writes_nothing(target: Path, asked, capsys) -> None:
    assert main(["accelerate", str(target), "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["path"] for layer in report["layers"]] == ["onnxruntime", "direct", "onnxruntime"]
    assert [path.name for path in target.parent.iterdir()] == ["target.onnx"]


def test_a_batch_for_nothing_is_said(target: Path, asked, capsys) -> None:
    assert main(["accelerate", str(target), "--dry-run", "--batch", "8"]) == 0
    assert capsys.readouterr().err == ""  # the model's batch is symbolic
    model = onnx.load(target)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, target)
    assert main(["accelerate", str(target), "--dry-run", "--batch", "8"]) == 0
    assert "--batch 8 changes nothing: the model's own batch is 2" in capsys.readouterr().err
    assert [call["batch"] for call in asked] == [8, 8]


def test_a_batch_that_is_none(target: Path, asked, capsys) -> None:
    assert main(["accelerate", str(target), "--batch", "0"]) == 2
    assert "--batch 0" in capsys.readouterr().err
    assert asked == []
