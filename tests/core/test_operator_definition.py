"""Function bodies of graphscale's operators are added to a model without torch."""

import onnx
import onnx_ir as ir

from graphscale.core.fft_conv_definition import FFT_CONV
from graphscale.core.operator_definition import DOMAIN, add_bodies

MODEL = """<ir_version: 10, opset_import: ["": 17, "graphscale": 1]>
    g (float[1,1,9,9] x, float[2,1,3,3] w) => (float[1,2,7,7] y) {
        c = graphscale.FFTConv (x, w)
        y = graphscale.Other (c)
    }"""


def test_a_node_gets_its_body_and_all_attributes() -> None:
    model = ir.from_proto(onnx.parser.parse_model(MODEL))
    add_bodies(model, lambda node: FFT_CONV if node.op_type == "FFTConv" else None)
    assert list(model.functions) == [(DOMAIN, "FFTConv", "")]
    convolution, other = model.graph
    assert set(convolution.attributes) == set(FFT_CONV.defaults)
    assert len(convolution.inputs) == 3  # the function's own, with an empty bias
    assert not other.attributes
    onnx.checker.check_model(ir.to_proto(model))
