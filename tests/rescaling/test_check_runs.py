"""A made network that does not run is told from one that no onnxruntime runs."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import graphscale
from graphscale.cli import main
from graphscale.core.plan import Plan
from graphscale.core.runtime import open_model
from graphscale.core.skeleton import restore, strip
from graphscale.rescaling.check_runs import check_grown_runs, check_runs
from graphscale.rescaling.grow import grow_model
from tests.passes.small_graphs import graph, plan_in


def network(opset: int = 20) -> onnx.ModelProto:
    nodes = "c = Conv <pads=[1,1,1,1]> (x, w)  f = Flatten (c)  y = MatMul (f, v)"
    return graph(nodes, "float[n,3,h,8] x", opset=opset, w=(2, 3, 3, 3), v=(2 * 8 * 8, 4))


def test_a_network_that_runs(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "target.onnx")
    pretrain = graphscale.shrink(network(), input_size="8:6")
    check_runs(ir.from_proto(pretrain), tmp_path / "target.onnx", "8:6")


def test_a_network_that_does_not_run_though_its_target_does(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "target.onnx")
    pretrain = graphscale.shrink(network(), input_size="8:6")
    (weight,) = [each for each in pretrain.graph.initializer if each.name == "v"]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros((9, 4), np.float32), "v"))
    with pytest.raises(graphscale.GraphScaleError, match="would not run in onnxruntime"):
        check_runs(ir.from_proto(pretrain), tmp_path / "target.onnx", "8:6")


def test_an_operator_that_onnxruntime_lacks(tmp_path: Path) -> None:
    """Neither network runs: that is no fault of shrinking."""
    target = graph(
        "c = Conv <pads=[1,1,1,1]> (x, w)  y = Neg (c)",
        "double[1,3,8,8] x",
        w=np.zeros((2, 3, 3, 3)),
    )
    onnx.save(target, tmp_path / "target.onnx")
    check_runs(ir.from_proto(graphscale.shrink(target)), tmp_path / "target.onnx", None)


def checkpoint(nodes: str, shape: list[int] | None = None, **weights) -> onnx.ModelProto:
    """A pre-train network with an operator of graphscale's, behind which growth gets this shape."""
    nodes = (
        "c = Conv <pads=[1,1,1,1]> (x, w)  "
        "p = graphscale.FeatureLPPooling <width=1, stride=1, power=2.0> (c)  r = Reshape (p, s)  "
    ) + nodes
    target = graph(
        nodes, "float[n,3,h,8] x", w=(2, 3, 3, 3), s=np.array([0, 2, 64]), **weights
    )  # the 64 are the map's 8 rows of 8 pixels
    made = ir.from_proto(graphscale.shrink(target, input_size="8:6"))
    plan = Plan.of(made)
    if shape:
        grown = restore(plan.target)
        grown.graph.initializers["s"].const_value = ir.tensor(np.array(shape))
        plan.target = strip(grown)
        plan.attach(made)
    return ir.to_proto(made)


def test_grow_writes_no_network_that_does_not_run(tmp_path: Path, capsys) -> None:
    """128 numbers an image are no 2 rows of 65."""
    made = checkpoint("y = Relu (r)", [0, 2, 65])
    onnx.save(made, tmp_path / "small.onnx")
    assert main(["grow", str(tmp_path / "small.onnx")]) == 2
    assert "the grown network would not run in onnxruntime" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_grow_opens_what_it_writes_once(check: list[str], tmp_path: Path, monkeypatch) -> None:
    """Its height is open, and the product behind the Reshape allows for 8 alone."""
    made = checkpoint("y = MatMul (r, v)", v=(64, 4))
    onnx.save(made, tmp_path / "small.onnx")
    opened = []

    class Session(onnxruntime.InferenceSession):
        def run(self, outputs, fed, options=None):
            opened.append(fed["x"].shape[2:])
            return super().run(outputs, fed, options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    assert main(["grow", str(tmp_path / "small.onnx"), *check]) == 0
    assert [*dict.fromkeys(opened)] == ([(6, 6)] if check else []) + [(8, 8)]
    assert len(opened) == (4 if check else 1)  # --check runs 16 images, 8 at a time


@pytest.mark.parametrize("computed", [1 << 26, 0])
def test_the_run_leaves_the_weights(computed: int, tmp_path: Path, monkeypatch) -> None:
    """The outputs afterwards are what numpy computes in float64, also where zeros were run."""
    monkeypatch.setattr("graphscale.rescaling.check_runs._COMPUTED", computed)
    made = ir.from_proto(checkpoint("y = MatMul (r, v)", v=(64, 40)))
    grown, _, plan = grow_model(made)
    onnx.save(ir.to_proto(made), tmp_path / "small.onnx")
    check_grown_runs(grown, tmp_path / "small.onnx", plan)
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = open_model(grown, providers=["CPUExecutionProvider"]).run(None, {"x": image})
    w, v = (grown.graph.initializers[each].const_value.numpy().astype(float) for each in "wv")
    padded = np.pad(image.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    maps = np.abs(np.einsum("nchwij,ocij->nohw", windows, w))
    np.testing.assert_allclose(found, maps.reshape(1, 2, 64) @ v, rtol=1e-4, atol=1e-4)


def test_too_little_memory_is_no_fault_of_the_network(tmp_path: Path) -> None:
    """The grown network alone asks for 16 TiB."""
    made = checkpoint("y = Relu (r)")
    onnx.save(made, tmp_path / "small.onnx")
    grown = graph(
        "k = ConstantOfShape (s)  y = Relu (k)", "float[n,3,h,8] x", "y", s=np.array([1 << 42])
    )
    check_grown_runs(ir.from_proto(grown), tmp_path / "small.onnx", plan_in(made))
