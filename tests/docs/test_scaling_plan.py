"""The tables of the scaling plan are those that its script makes, and its bytes add up by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location(
        "scaling_plan", ROOT / "benchmarks/scaling_plan.py"
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_scripts_tables(plan) -> None:
    assert f"{plan.BEGIN}\n{plan.tables()}\n{plan.END}" in plan.PAGE.read_text()


def test_bytes_by_hand(plan) -> None:
    shapes = [torch.Size((64, 32, 3, 3)), torch.Size((64,))]
    assert plan.bytes_sent(shapes, "dense", 4) == 1.5 * 4 * (18432 + 64)
    assert plan.bytes_sent(shapes, "bfloat16", 4) == 1.5 * 2 * (18432 + 64)
    # 16 rows for each home, each of 288 bits and two means.
    assert plan.bytes_sent(shapes, "one bit", 4) == 6 * 16 * (36 + 8) + 1.5 * 4 * 64
    assert plan.bytes_sent(shapes, "PowerSGD, rank 4", 4) == 1.5 * 4 * (4 * (64 + 288) + 64)
