"""Public functions name an argument that they cannot use, and say what to give."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphscale
from graphscale import layers, training
from graphscale.core.errors import GraphScaleError
from tests.passes.small_graphs import graph

TARGET = nn.Sequential(nn.Conv2d(2, 4, 5, padding=2), nn.ReLU())
EXAMPLE = torch.zeros(1, 2, 16, 16)
MODEL = graph("y = Conv <pads=[1,1,1,1]> (x, w)", w=(4, 3, 3, 3))
PRETRAIN = graphscale.shrink(TARGET, EXAMPLE)

# Values that are no sizes, no shares, no names: each argument is given those of its kind.
NO_WHOLE = ["3", 1.5, None, [], math.nan, object(), -1]
NO_SHARE = ["0.5", None, [], math.nan, math.inf, object()]
NO_NAME = ["other", "", None, [], {}, 3, object(), np.arange(3)]
NO_SIZES = [[], "x", (1, "2"), {}, 1.5, object(), -1, (3, 0)]
NO_OBJECT = ["x", 3, object(), [3]]


def schedule(**options: object) -> training.GrowthSchedule:
    given = {"total": 10, "grow_at": 0.5, **options}
    return training.GrowthSchedule(given.pop("module", copy.deepcopy(PRETRAIN)), **given)


def rates(**options: object) -> training.GrowthLR:
    module = copy.deepcopy(PRETRAIN)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    given = {"schedule": schedule(module=module), "optimizer": optimizer, **options}
    return training.GrowthLR(**given)


SHRINK = {
    "input_size": NO_SIZES,
    "kernels": ["3:2", 3, [3], {3: 4}, {0: 0}, {3: -1}, {3: "2"}, {"3": 2}, {3: None}],
    "keep": ["conv", None, 3, [3], [None]],
    "init": [*NO_NAME[:2], *NO_NAME[3:]],  # None stands for the default
    "seed": NO_WHOLE,
}
PLAN = {name: SHRINK[name] for name in ("input_size", "kernels", "keep")}
CASES: list[tuple[Callable, dict[str, list]]] = [
    (partial(graphscale.shrink, MODEL), SHRINK | {"example_input": [(160, 160), EXAMPLE]}),
    (partial(graphscale.shrink, TARGET, EXAMPLE), SHRINK),
    (partial(graphscale.plan, MODEL), PLAN | {"example_input": [(160, 160)]}),
    (partial(graphscale.plan, TARGET, EXAMPLE), PLAN),
    (partial(graphscale.grow, PRETRAIN), {"plan": NO_OBJECT[1:], "resize": NO_NAME}),
    (
        partial(graphscale.grow, graphscale.shrink(MODEL)),
        {"plan": NO_OBJECT[1:], "target": NO_OBJECT[1:], "resize": NO_NAME},
    ),
    (
        lambda **given: graphscale.grow_(**{"module": copy.deepcopy(PRETRAIN), **given}),
        {
            "module": NO_OBJECT,
            "plan": NO_OBJECT[1:],
            "to": NO_OBJECT,
            "optimizers": NO_OBJECT,
            "averages": NO_OBJECT,
            "optimizer_state": NO_NAME,
            "resize": NO_NAME,
            "amplitude": NO_NAME,
        },
    ),
    (
        partial(graphscale.load, MODEL),
        {"dtype": [int, "float32", torch.int64, 3], "input_size": NO_SIZES},
    ),
    (partial(graphscale.save, graphscale.load(MODEL)), {"path": [3, [], object()]}),
    (partial(graphscale.accelerate, MODEL), {"batch": NO_WHOLE, "input_size": NO_SIZES}),
    (partial(graphscale.session, MODEL), {"sess_options": NO_OBJECT}),
    (
        schedule,
        {
            "module": NO_OBJECT,
            "total": NO_WHOLE,
            "grow_at": ["0.5", None, [], [None], math.nan, object(), -1, 10],
            "later": NO_OBJECT,
            "optimizers": NO_OBJECT,
            "averages": NO_OBJECT,
            "extra_until_drop": NO_WHOLE,
            "shared_size": NO_OBJECT,
        },
    ),
    (
        lambda **given: schedule(grow_at=training.BeforeDrop(**{"milestones": [5], **given})),
        {"milestones": [[], None, "5", [None]], "units": NO_WHOLE},
    ),
    (
        lambda **given: schedule(grow_at=training.Plateau(**given)),
        {"patience": NO_WHOLE, "min_delta": NO_SHARE, "latest": [*NO_SHARE, 1.5]},
    ),
    (lambda score: schedule().step(score), {"score": ["good", [], object()]}),
    (
        lambda state: schedule().load_state_dict(state),
        {
            "state": [
                *(None, {}, 3),
                *(
                    schedule().state_dict() | changed
                    for changed in (
                        {"grown_at": [1, 2]},
                        {"grown_at": [None]},
                        {"grown_at": 3},
                        {"position": -1},
                        {"extra": "1"},
                        {"best": "good"},
                        {"last": []},
                        {"holding": 3},
                        {"scores_since_best": 1.5},
                    )
                ),
            ]
        },
    ),
    (
        rates,
        {
            "schedule": NO_OBJECT,
            "optimizer": NO_OBJECT,
            "scheduler": NO_OBJECT,
            "after": NO_NAME,
            "height": [*NO_SHARE, -1],
            "decay": NO_NAME[:-1],
            "warmup": NO_WHOLE,
        },
    ),
    (
        lambda **given: training.GrowthStages(
            **{"target": TARGET, "example_input": EXAMPLE, "options": [{}], **given}
        ),
        {"target": NO_OBJECT, "options": [{}, 3, [3], [{"size": 3}]]},
    ),
    (
        lambda **given: training.resize_batch(
            **{"images": torch.zeros(1, 1, 4, 4), "size": 2, **given}
        ),
        {"images": NO_OBJECT, "size": [*NO_SIZES, (1, 2, 3)], "mode": NO_NAME},
    ),
    (training.ResizeInputs, {"size": NO_SIZES}),
    (training.SharedImageSize, {"size": NO_SIZES}),
    (
        partial(layers.CrossMapNormalization, 3),
        {"scale": NO_SHARE, "power": NO_SHARE},
    ),
    (layers.CrossMapNormalization, {"size": [*NO_WHOLE, 2]}),
    (layers.FeatureLPPooling, {"width": NO_WHOLE}),
    (partial(layers.FeatureLPPooling, 2), {"stride": NO_WHOLE, "power": [*NO_SHARE, 0]}),
    (layers.Maxout, {"width": NO_WHOLE}),
    (partial(layers.Maxout, 2), {"stride": [0, "2", 1.5]}),
    (layers.TemporalKMaxPool, {"k": NO_WHOLE}),
    (partial(layers.TemporalKMaxPool, 2), {"k_dynamic": [*NO_SHARE, 1.5, -1]}),
    (partial(layers.GroupKMaxPool, 4), {"k": [*NO_WHOLE, 5]}),
    (
        lambda **given: layers.LocallyConnected(
            **{"in_channels": 2, "out_channels": 2, "image_size": (4, 4), "kernel_size": 2, **given}
        ),
        {
            "in_channels": NO_WHOLE,
            "out_channels": NO_WHOLE,
            "image_size": NO_SIZES,
            "kernel_size": [*NO_SIZES, 5],
            "stride": NO_SIZES,
        },
    ),
    (
        lambda **given: layers.LookupTable(**{"num_embeddings": 5, "embedding_dim": 3, **given}),
        {
            "num_embeddings": NO_WHOLE,
            "embedding_dim": NO_WHOLE,
            "padding_idx": ["1", 5, -6, 1.5],
            "max_norm": ["1", -1, math.nan],
            "norm_type": [*NO_SHARE[:-2], 0],
        },
    ),
    (
        lambda **given: layers.HierarchicalSoftmax(**{"in_features": 4, "num_classes": 9, **given}),
        {
            "in_features": NO_WHOLE,
            "num_classes": [*NO_WHOLE, 0],
            "clusters": [[0] * 9, torch.zeros(9), torch.zeros(8, dtype=torch.int64)],
            "frequencies": [[1] * 9, torch.tensor(1), torch.ones(8)],
            "num_clusters": [0, 10, "3", 1.5],
            "ignore_index": ["1", 1.5, None],
            "reduction": NO_NAME,
        },
    ),
    (partial(layers.TopClasses, layers.HierarchicalSoftmax(4, 9)), {"k": [*NO_WHOLE, 0, 10]}),
    (layers.OneBitDequantize, {"columns": ["3", 1.5, (3, -1), None, object()]}),
    (layers.SparseNLLCriterion, {"reduction": NO_NAME}),
    (
        lambda **given: layers.TemporalConv(
            **{"in_features": 2, "out_features": 2, "kernel_size": 2, **given}
        ),
        dict.fromkeys(("in_features", "out_features", "kernel_size", "stride"), NO_WHOLE),
    ),
    (layers.accelerate, {"module": NO_OBJECT}),
]
# What errors call an argument where they do not use its own name.
WORDS = {
    "init": "initialisation",
    "resize": "resize method",
    "plan": "is no plan",
    "optimizers": "optimizer",
    "averages": "averages|collection",
    "grow_at": "grow_at|growth",
    "kernel_size": "kernel",
    "input_size": "input.size",
}


@pytest.mark.parametrize(("function", "arguments"), CASES)
def test_a_wrong_argument_is_named(function: Callable, arguments: dict[str, list]) -> None:
    for name, values in arguments.items():
        for value in values:
            with pytest.raises(GraphScaleError, match=WORDS.get(name, name)) as caught:
                function(**{name: value})
            assert "\n" not in str(caught.value)


def test_numpys_numbers_are_taken() -> None:
    size, share = np.int64(13), np.float32(0.5)
    assert graphscale.plan(TARGET, EXAMPLE, input_size=size).image_size == (13, 13)
    assert graphscale.plan(TARGET, EXAMPLE, kernels={np.int64(5): np.int64(5)}).layers
    assert schedule(total=np.int64(10), grow_at=share)._when == [5]
    assert layers.TemporalConv(2, 2, np.int64(2)).kernel_size == 2
    assert training.ResizeInputs(size).size == (13, 13)


def test_a_path_that_no_file_system_takes(tmp_path: Path) -> None:
    module = graphscale.load(MODEL)
    for path in ("a\0b", tmp_path / "\ud800"):
        with pytest.raises(GraphScaleError, match="is no path"):
            graphscale.save(module, path)
    graphscale.save(module, tmp_path / "ß.onnx")
    onnx.checker.check_model(tmp_path / "ß.onnx")


def test_scores_that_are_nan_are_no_better_ones() -> None:
    trained = schedule(grow_at=training.Plateau(patience=2))
    assert [trained.step(score) for score in (math.nan, 0.5, 0.6, math.nan, 0.6)] == [
        *[False] * 4,
        True,
    ]
