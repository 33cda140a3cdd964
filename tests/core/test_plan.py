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
        inputs=[InputPlan("x", ["n", 3, 32, 32], ["n", 3, 20, 20], [1, 3, 32, 32], [2, 3])],
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
    assert Plan.of(ir.to_proto(model)) == example()


def test_plans_from_before_positions_were_noted() -> None:
    data = json.loads(example().to_json())
    del data["inputs"][0]["spatial"]
    assert Plan.from_json(json.dumps(data)) == example()
    last = {"target": ["n", 32, 32, 3], "pretrain": ["n", 20, 20, 3], "shape": [1, 32, 32, 3]}
    data["inputs"][0].update(last)
    assert Plan.from_json(json.dumps(data)).image_size == (20, 20)


def test_the_report_keeps_its_keys() -> None:
    """Scripts read `graphscale shrink --json`."""
    (layer,) = example().report()["layers"]
    assert list(layer) == [
        *("name", "weight", "op", "target_kernel", "pretrain_kernel", "target_extent"),
        *("pretrain_extent", "multiplications", "left_unscaled"),
    ]
    assert layer["multiplications"] == {"target": 90, "pretrain": 20}


def changed(path: list[str | int], value: object) -> str:
    """The example as JSON with another value at one place."""
    data = json.loads(example().to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "2", "format is a text, not a whole number"),
        (["format"], True, "format is True, not a whole number"),
        (["inputs"], {}, "inputs is an object, not a list"),
        (["inputs", 0], "x", r"inputs\[0\] is a text, not an object"),
        (["inputs", 0, "target"], [], r"inputs\[0\] has shapes .* do not belong together"),
        (["inputs", 0, "pretrain", 0], "m", r"inputs\[0\] has shapes .* do not belong together"),
        (["inputs", 0, "pretrain", 2], 0, r"inputs\[0\]\.pretrain\[2\] is 0, not between 1"),
        (["inputs", 0, "target", 1], 3.5, r"inputs\[0\]\.target\[1\] is a number \(3\.5\), not"),
        (["inputs", 0, "target", 1], 1 << 64, r"target\[1\] is 1844\d+, not between 1 and 2\^63"),
        (["inputs", 0, "spatial"], [2, 4], r"inputs\[0\]\.spatial is not the positions"),
        (["inputs", 0, "spatial"], [3, 2], r"inputs\[0\]\.spatial is not the positions"),
        (["layers", 0, "name"], None, r"layers\[0\]\.name is None, not a text"),
        (["layers", 0, "odd"], 1, r"layers\[0\] has the unknown field 'odd'"),
        (["layers", 0, "target_kernel"], [3], r"layers\[0\] has different numbers of spatial axes"),
        (["layers", 0, "target_multiplications"], -1, r"target_multiplications is -1, not between"),
        (["layers", 0, "left_unscaled"], 5, r"layers\[0\]\.left_unscaled is a number, not a text"),
        (["weights", 0, "factors"], 5, r"weights\[0\]\.factors is a number, not a list"),
        (["weights", 0, "factors", 0, 0, 0], 1.5, r"factors\[0\]\[0\]\[0\] is a number \(1\.5\)"),
        (["weights", 0, "factors", 0, 0, 1], [1], r"factors\[0\]\[0\]\[1\] is a list, not a whole"),
        (["weights", 0, "factors", 0, 0], [1], r"factors\[0\]\[0\] has 1 sizes"),
        (["weights", 0, "factors", 1, 0], {}, r"factors\[1\]\[0\] has no 'parts'"),
        (["weights", 0, "factors", 1, 0, "parts", 0], 1, r"parts\[0\] is a number, not a list"),
        (["weights", 0, "kind"], 3, r"weights\[0\]\.kind is a number, not a text"),
        (["weights", 0, "kind"], "odd", r"kind is none of 'kernel', 'interface', 'table'"),
        (["constants"], [1], r"constants\[0\] is a number, not a text"),
        (["init"], "odd", "init is none of 'resize', 'fresh', ''"),
        (["grids"], [], "grids is not an object"),
        (["grids", "c"], 1, r"grids\['c'\] is a number, not a list"),
        (["grids", "c", 0, "phase"], float("nan"), r"phase is a number \(nan\), not a finite"),
        (["grids", "c", 0, "target", "size"], "1", r"target\.size is a text, not a whole number"),
        (["target"], 5, "target is a number, not a text"),
    ],
)
def test_each_field_is_checked(path: list[str | int], value: object, message: str) -> None:
    pattern = rf"^a\.json: not a graphscale plan \(.*{message}.*\); give the \.plan\.json"
    with pytest.raises(graphscale.GraphScaleError, match=pattern):
        Plan.from_json(changed(path, value), "a.json")


@pytest.mark.parametrize("text", ["", "5", "[]", "{}", "[" * 100_000, "{", "é", b"\xff\xfe\xff"])
def test_other_texts_are_refused(text: str | bytes) -> None:
    with pytest.raises(graphscale.GraphScaleError, match=r"^a\.json: not a graphscale plan \("):
        Plan.from_json(text, "a.json")


def test_a_plan_is_given_itself_or_as_its_file(tmp_path) -> None:
    Plan(init="fresh").save(tmp_path / "p.json")
    given = Plan.given(str(tmp_path / "p.json"))
    assert given == Plan.given(given) == Plan(init="fresh")
    assert Plan.given(None) is None
    with pytest.raises(graphscale.GraphScaleError, match="dict is no plan; give a "):
        Plan.given({})
    with pytest.raises(graphscale.GraphScaleError, match=r"cannot be read \(embedded null byte\)"):
        Plan.given("\0")


def test_factors_in_factors_too_deep_are_refused() -> None:
    data = json.loads(changed(["weights", 0, "factors"], "HERE"))
    nest = '[{"parts":[' * 20_000 + "]}]" * 20_000
    with pytest.raises(graphscale.GraphScaleError, match=r"^a\.json: not a graphscale plan \("):
        Plan.from_json(json.dumps(data).replace('"HERE"', f"[{nest}]"), "a.json")


def test_a_missing_field_is_named() -> None:
    data = json.loads(example().to_json())
    del data["folded"]
    with pytest.raises(graphscale.GraphScaleError, match="has no 'folded'"):
        Plan.from_json(json.dumps(data))
