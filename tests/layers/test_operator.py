"""The torch operator, the ONNX schema and the exporter's rule come from one torch schema."""

import onnx
import pytest
import torch

from graphscale.core.fft_conv_definition import FFT_CONV
from graphscale.layers.operator import DOMAIN, OPERATORS, Operator, _snake_case, is_transformed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FFTConv", "fft_conv"),
        ("FFTConvGradWeight", "fft_conv_grad_weight"),
        ("OneBitQuantize", "one_bit_quantize"),
        ("TemporalKMaxPool", "temporal_k_max_pool"),
        ("FeatureLPPooling", "feature_lp_pooling"),
        ("HierarchicalSoftmaxTopK", "hierarchical_softmax_top_k"),
    ],
)
def test_names_in_torch(name, expected):
    assert _snake_case(name) == expected
    assert OPERATORS[name].torch_op is getattr(torch.ops.graphscale, expected).default


def test_inputs_and_attributes_of_a_schema():
    operator = OPERATORS["FFTConv"]
    assert [a.name for a in operator.inputs] == ["X", "W", "B"]
    assert operator.defaults[: len(operator.inputs)] == (None, None, None)
    schema = operator.onnx_schema()
    assert (schema.name, schema.domain, schema.since_version) == ("FFTConv", DOMAIN, 1)
    option = onnx.defs.OpSchema.FormalParameterOption
    assert [value.option for value in schema.inputs] == [
        option.Single,
        option.Single,
        option.Optional,
    ]
    assert len({value.type_str for value in [*schema.inputs, *schema.outputs]}) == 4
    assert set(schema.attributes) == {a.name for a in operator.attributes}


def test_default_attributes_leave_out_what_onnx_cannot_express():
    for operator in OPERATORS.values():
        found = operator.definition.defaults
        assert [] not in found.values()
        assert found.keys() <= {a.name for a in operator.attributes}
    assert OPERATORS["LookupTable"].definition.defaults == {"padding_idx": -1}


def test_the_exporters_rule_has_the_schemas_signature():
    rule = OPERATORS["LookupTable"].export_rule()
    parameters = rule.__signature__.parameters
    assert list(parameters) == [a.name for a in OPERATORS["LookupTable"].torch_op._schema.arguments]
    assert parameters["padding_idx"].default == -1
    assert rule.__name__ == "LookupTable"


def test_tensors_stand_before_attributes():
    with pytest.raises(AssertionError, match="tensors come first"):
        Operator("TestDisorder", "(int k, Tensor x) -> Tensor", lambda k, x: x, "")
    assert "TestDisorder" not in OPERATORS


def test_shapes_that_do_not_fit_are_refused_by_the_kernels_sentence():
    """The Python function of shapes fails, and the library says what is wrong."""
    with pytest.raises(Exception, match=r"FFTConv: .*channels"):
        OPERATORS["FFTConv"](torch.zeros(1, 3, 8, 8), torch.zeros(2, 4, 3, 3), None)


def test_transforms_are_noticed():
    assert not is_transformed()
    seen = []
    torch.func.vmap(lambda x: seen.append(is_transformed()) or x)(torch.zeros(2))
    with torch.autograd.forward_ad.dual_level():
        seen.append(is_transformed())
    assert seen == [True, True]


def test_the_definition_that_needs_no_torch_is_the_torch_operators():
    assert OPERATORS["FFTConv"].definition == FFT_CONV
