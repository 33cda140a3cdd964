"""Quantised weights become the floating-point numbers that their scales give, computed by hand."""

import numpy as np
import pytest

from graphscale.passes.normalize.dequantize_weights import DequantizeWeights
from tests.passes.parsed_graphs import normal, operators, read, run

INTEGERS = np.random.default_rng(0).integers(-100, 100, (3, 2, 3, 3)).astype(np.int8)
SCALES = np.array([0.5, 0.25, 2.0], np.float32)
ZEROS = np.array([1, -2, 3], np.int8)


def model(opset: int):
    return read(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N, 2, 5, 5] x) => (float[N, C, H, W] y) {{
            codes = QuantizeLinear(x, step, zero)
            coarse = DequantizeLinear(codes, step, zero)
            kernel = DequantizeLinear <axis = 0> (integers, scales, zeros)
            bias = DequantizeLinear(bias_integers, step)
            y = Conv(coarse, kernel, bias)
        }}""",
        integers=INTEGERS,
        scales=SCALES,
        zeros=ZEROS,
        bias_integers=np.array([4, 5, 6], np.int32),
        step=np.float32(0.125),
        zero=np.int8(0),
    )


@pytest.mark.parametrize("opset", [13, 19])
def test_weights_and_biases_are_dequantised_per_channel(opset):
    quantised = model(opset)
    x = normal(1, 2, 5, 5)
    expected = run(quantised, x=x)
    assert DequantizeWeights()(quantised).names == ["kernel", "bias"]
    assert operators(quantised) == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    kept = quantised.graph.initializers
    assert set(kept) == {"kernel", "bias", "step", "zero"}  # those of the activation stay
    by_hand = (INTEGERS.astype(np.float32) - ZEROS[:, None, None, None]) * SCALES[
        :, None, None, None
    ]
    np.testing.assert_array_equal(kept["kernel"].const_value.numpy(), by_hand)
    np.testing.assert_array_equal(kept["bias"].const_value.numpy(), np.float32([0.5, 0.625, 0.75]))
    np.testing.assert_allclose(run(quantised, x=x)[0], expected[0], rtol=1e-5, atol=1e-4)


def test_integers_that_another_node_reads_stay():
    shared = read(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] x) => (float[2, 3] y, int8[3] z) {
            scale = DequantizeLinear(integers, step)
            y = Mul(x, scale)
            z = Identity(integers)
        }""",
        integers=np.array([1, 2, 3], np.int8),
        step=np.float32(0.5),
    )
    assert DequantizeWeights()(shared).names == ["scale"]
    assert "integers" in shared.graph.initializers


def test_a_model_without_quantised_weights_is_not_changed():
    plain = read(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"""
    )
    assert not DequantizeWeights()(plain).modified
