"""A pre-train network that does not run is told from one that no onnxruntime runs."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphscale
from graphscale.rescaling.check_runs import check_runs
from tests.passes.small_graphs import graph


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
