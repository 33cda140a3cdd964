"""Every operator of ONNX has a rule, or stands in a list of those without one."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from graphscale.passes.spatial import analyze  # noqa: F401  (registers the rules)
from graphscale.passes.spatial.registry import (
    Rule,
    convolution_rule,
    find_rule,
    register,
    registered_operators,
)

# Operators whose use of heights and widths is unknown, or cannot be rescaled: refused where a
# height or width goes in. A new operator of ONNX belongs here or into a file of rules/.
REFUSED = {
    # They have another meaning at each position, or an output that depends on the data.
    *("CenterCropPad", "Col2Im", "Compress", "DFT", "Det", "EyeLike", "If", "Loop"),
    *("MaxUnpool", "Multinomial", "NonMaxSuppression", "NonZero"),
    *("OneHot", "ReverseSequence", "STFT", "Scan", "TensorScatter", "TfIdfVectorizer", "Unique"),
    # Losses, whose labels are an input with heights and widths behind the batch.
    *("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    # Attention: positions are told by other inputs.
    *("Attention", "CausalConvWithState", "LinearAttention", "RotaryEmbedding", "SwiGLU"),
    # Quantized products, whose kernels are not resized.
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "BitCast"),
    # Sequences, optionals and texts.
    *("Optional", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "SequenceEmpty"),
    *("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "StringConcat"),
    *("StringNormalizer", "StringSplit"),
    # No tensor goes in, or only its shape.
    *("BlackmanWindow", "Constant", "ConstantOfShape", "HammingWindow", "HannWindow"),
    *("ImageDecoder", "MelWeightMatrix", "RandomNormal", "RandomUniform", "Range", "Shape", "Size"),
}


def test_every_operator_of_onnx_is_decided() -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    ruled = {operator for domain, operator in registered_operators() if domain == ""}
    assert ruled <= known
    assert not ruled & REFUSED
    assert known - ruled == REFUSED & known


def test_every_operator_of_the_library_is_decided() -> None:
    ruled = {operator for domain, operator in registered_operators() if domain == "graphscale"}
    assert ruled == {
        *("CrossMapNormalization", "FFTConv", "FeatureLPPooling", "LocallyConnected", "Maxout")
    }


def test_convolutions() -> None:
    nodes = [ir.node(name, []) for name in ("Conv", "ConvTranspose", "MaxPool", "Gemm")]
    assert [convolution_rule(node) is not None for node in nodes] == [True, True, False, False]
    assert convolution_rule(ir.node("Conv", [], domain="elsewhere")) is None


def test_the_other_name_of_the_standard_domain() -> None:
    assert find_rule(ir.node("Relu", [], domain="ai.onnx")) is find_rule(ir.node("Relu", []))


def test_an_operator_has_one_rule() -> None:
    class Second(Rule):
        def analyze(self, node, analyzer) -> None:
            raise AssertionError

    with pytest.raises(ValueError, match="Relu has two rules"):
        register("Relu")(Second)
