"""The target filled from a checkpoint, with a plan written by hand."""

import numpy as np
import onnx_ir as ir
import pytest

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import Plan
from graphscale.passes.grow.grow_graph import grow_graph
from tests.passes.parsed_graphs import normal, parse, read

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 9, 9] x) => (float[N, 4] y)'
BODY = "{ a = Conv(x, k, b)  p = GlobalAveragePool(a)  y = Flatten(p) }"
TARGET = {"k": normal(4, 2, 5, 5), "b": normal(4)}


def planned() -> tuple[ir.Model, Plan]:
    """A pre-train network, whose kernel has 3×3 taps, and its plan."""
    pretrain = graphscale.shrink(parse(f"{HEAD} {BODY}", **TARGET), init="resize")
    return ir.from_proto(pretrain), graphscale.plan(parse(f"{HEAD} {BODY}", **TARGET))


def test_a_constant_kernel_grows_to_a_constant_one_of_equal_sum():
    """Bilinear growth times (3/5)² keeps what the kernel makes of a constant image."""
    checkpoint, plan = planned()
    kernel = checkpoint.graph.initializers["k"]
    kernel.const_value = ir.tensor(np.ones((4, 2, 3, 3), np.float32), name="k")
    target = read(f"{HEAD} {BODY}", **TARGET)
    growth = grow_graph(target, checkpoint, plan, "bilinear")
    assert (growth.resized, growth.copied, growth.renamed, growth.untied) == (["k"], ["b"], {}, [])
    grown = target.graph.initializers["k"].const_value.numpy()
    np.testing.assert_allclose(grown, np.full((4, 2, 5, 5), 9 / 25), rtol=1e-6)
    bias = target.graph.initializers["b"].const_value.numpy()
    np.testing.assert_array_equal(bias, TARGET["b"])


def test_weights_are_converted_to_the_targets_type():
    checkpoint, plan = planned()
    half = checkpoint.graph.initializers["b"].const_value.numpy().astype(np.float16)
    checkpoint.graph.initializers["b"].const_value = ir.tensor(half, name="b")
    target = read(f"{HEAD} {BODY}", **TARGET)
    grow_graph(target, checkpoint, plan, "bilinear")
    bias = target.graph.initializers["b"].const_value
    assert bias.dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(bias.numpy(), half.astype(np.float32))


def test_a_checkpoint_of_another_network_is_refused_by_its_weights():
    _, plan = planned()
    other = read(f"{HEAD} {BODY}", k=normal(6, 2, 3, 3), b=normal(4))
    with pytest.raises(
        GraphScaleError, match=r"no weight fits 'k' of shape \[4, 2, 3, 3\].*\[6, 2"
    ):
        grow_graph(read(f"{HEAD} {BODY}", **TARGET), other, plan, "bilinear")
