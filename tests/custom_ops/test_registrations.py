"""The library's registrations and torch's operators agree."""

import shutil
import subprocess

import onnx
import pytest
import torch

import graphscale
import graphscale.layers
from graphscale.layers import library
from graphscale.layers.operator import OPERATORS

REGISTERED = {entry["name"]: entry for entry in library.describe()}
KINDS = {"int": "int", "float": "float", "string": "str", "list of ints": "List[int]"}


def test_torch_has_every_operator():
    assert set(OPERATORS) == set(REGISTERED)


@pytest.mark.parametrize("name", REGISTERED)
def test_torch_signature(name):
    entry, operator = REGISTERED[name], OPERATORS[name]
    assert [a.name for a in operator.inputs] == [value["name"] for value in entry["inputs"]]
    optional = ["Optional" in str(a.type) for a in operator.inputs]
    assert optional == [value["optional"] for value in entry["inputs"]]
    assert len(operator.outputs) == sum(not value["optional"] for value in entry["outputs"])
    attributes = {attribute["name"]: attribute for attribute in entry["attributes"]}
    assert {a.name for a in operator.attributes} == set(attributes)
    for argument in operator.attributes:
        known = attributes[argument.name]
        assert str(argument.type) == KINDS[known["type"]]
        assert argument.has_default_value() == (known["default"] is not None)
        if argument.has_default_value():
            assert argument.default_value == pytest.approx(known["default"])


def test_trainable_inputs():
    # The parameters of each layer, by name; gradients and all other operators have none.
    expected = {
        "FFTConv": ["W", "B"],
        "LocallyConnected": ["weight"],
        "TemporalConv": ["weight", "bias"],
        "LookupTable": ["weight"],
        "WeightedLookupTable": ["weight"],
        "HierarchicalSoftmaxLoss": ["cluster_weight", "cluster_bias", "weight", "bias"],
        "HierarchicalSoftmaxLogProb": ["cluster_weight", "cluster_bias", "weight", "bias"],
        "HierarchicalSoftmaxTopK": ["cluster_weight", "cluster_bias", "weight", "bias"],
    }
    found = {
        name: [operator.inputs[i].name for i in operator.trainable_inputs]
        for name, operator in OPERATORS.items()
    }
    assert found == {name: expected.get(name, []) for name in OPERATORS}


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.parametrize("opset", [18, 20, 23])
def test_function_body(name, opset):
    entry, function = REGISTERED[name], OPERATORS[name].definition.function(opset)
    onnx.checker.check_function(function)
    names = [value["name"] for value in entry["inputs"]]
    assert list(function.input) == names[: len(function.input)]
    assert all(value["optional"] for value in entry["inputs"][len(function.input) :])
    names = [value["name"] for value in entry["outputs"]]
    assert list(function.output) == names[: len(function.output)]
    assert all(value["optional"] for value in entry["outputs"][len(function.output) :])
    defaults = {a.name: onnx.helper.get_attribute_value(a) for a in function.attribute_proto}
    for attribute in entry["attributes"]:
        if attribute["default"] not in (None, []):
            default = defaults.pop(attribute["name"])
            default = default.decode() if isinstance(default, bytes) else default
            assert default == pytest.approx(attribute["default"])
        else:
            assert attribute["name"] in function.attribute
    assert not defaults


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_exported_symbols():
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", graphscale.get_library_path()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {line.split()[-1] for line in listing.splitlines()} == {
        "RegisterCustomOps",
        "graphscale_cuda_error",
        "graphscale_describe",
        "graphscale_algorithms",
        "graphscale_infer_shapes",
        "graphscale_run",
    }


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("graphscale.core.runtime.__file__", str(tmp_path / "runtime.py"))
    with pytest.raises(graphscale.GraphScaleError, match=r"libgraphscale\.so does not exist"):
        graphscale.get_library_path()


def test_tensors_of_other_types_and_places():
    x = torch.randn(1, 4, 2)
    with pytest.raises(graphscale.GraphScaleError, match=r"no kernel for torch\.complex64"):
        OPERATORS["Maxout"](x.to(torch.complex64), 2, 2)
    with pytest.raises(graphscale.GraphScaleError, match="put all of them on one device"):
        library.run("Maxout", [x], [x.to("meta")], library.attribute_array((), ()))
