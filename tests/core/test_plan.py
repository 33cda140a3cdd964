"""The plan as JSON, its formats, and the sizes of joined factors."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

import graphscale
from graphscale.core.plan import (
    FORMAT,
    Grid,
    GridPlan,
    InputPlan,
    JoinedFactor,
    LayerPlan,
    Plan,
    WeightPlan,
)

PARTS = JoinedFactor([[(3, 3), (8, 5)], [(6, 6)]])


def example() -> Plan:
    return Plan(
        inputs=[InputPlan("x", ["n", 3, 32, 32], ["n", 3, 20, 20])],
        layers=[LayerPlan("conv", "w", "Conv", [3, 3], [2, 2], [16, 16], [10, 10], 90, 20, None)],
        weights=[WeightPlan("v", "interface", [[(5, 5)], [PARTS, (2, 1)]])],
        constants=["shape"],
        init="resize",
        grids={"c": [GridPlan(2, Grid(0.0, 2.0, 16), Grid(0.5, 2.0, 10), 0.25)]},
        folded=["k"],
        resolved_ifs=["if"],
        target="abc",
    )


def test_json_and_back() -> None:
    assert Plan.from_json(example().to_json()) == example()


def test_sizes_of_joined_factors() -> None:
    (weight,) = example().weights
    assert weight.target_shape == [5, (3 * 8 + 6) * 2]
    assert weight.pretrain_shape == [5, 3 * 5 + 6]


def test_the_centre_of_a_grid() -> None:
    """Pixels at 0.5 and 2.5 of an image of 4: their middle, 1.5, is the image's."""
    assert Grid(0.5, 2.0, 2).centre(4) == 0
    assert Grid(0.0, 2.0, 2).centre(4) == -0.5 / 4


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (FORMAT - 1, r"^old\.json: written by an older graphscale .* shrink the target again"),
        (FORMAT + 1, r"^old\.json: written by a newer graphscale .* upgrade graphscale$"),
    ],
)
def test_other_formats_are_refused(version: int, message: str) -> None:
    text = json.dumps({**json.loads(example().to_json()), "format": version})
    with pytest.raises(graphscale.GraphScaleError, match=message):
        Plan.from_json(text, "old.json")


def test_in_a_models_metadata() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    assert Plan.of(model) is None
    example().attach(model)
    assert Plan.of(model) == example()


def test_the_report_keeps_its_keys() -> None:
    """Scripts read `graphscale shrink --json`."""
    (layer,) = example().report()["layers"]
    assert list(layer) == [
        *("name", "weight", "op", "target_kernel", "pretrain_kernel", "target_extent"),
        *("pretrain_extent", "multiplications", "left_unscaled"),
    ]
    assert layer["multiplications"] == {"target": 90, "pretrain": 20}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("weights", 0, "factors", 0, 0, 0), 1.5),
        (("weights", 0, "factors", 0, 0, 1), [1]),
        (("weights", 0, "factors", 0, 0, 1), 0),
        (("weights", 0, "kind"), 3),
        (("weights", 0, "name"), None),
        (("inputs", 0, "target"), []),
        (("inputs", 0, "pretrain", 2), -4),
        (("target",), 5),
    ],
)
def test_damaged(path: tuple, value: object) -> None:
    data = json.loads(example().to_json())
    *outer, key = path
    place = data
    for each in outer:
        place = place[each]
    place[key] = value
    with pytest.raises(graphscale.GraphScaleError, match="not a graphscale plan"):
        Plan.from_json(json.dumps(data))
