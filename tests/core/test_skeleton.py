"""A model without its weights becomes text and back; damaged text is refused."""

import base64
import warnings
import zlib

import onnx_ir as ir
import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from graphscale.core.skeleton import is_stripped, restore, strip
from tests.zoo.handmade import classic, constant_nodes


@pytest.mark.parametrize("make", [classic, lambda opset: constant_nodes(classic(opset))])
def test_large_tensors_are_left_out_and_the_graph_stays(make):
    model = load_model(make(17))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    text = strip(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert len(text) < len(before) / 10
    restored = restore(text)
    assert [node.op_type for node in restored.graph] == [node.op_type for node in model.graph]
    for name, value in restored.graph.initializers.items():
        tensor = model.graph.initializers[name].const_value
        assert is_stripped(value.const_value) == (tensor.nbytes >= 1024)
        assert value.const_value.shape == tensor.shape


@pytest.mark.parametrize(
    "text",
    ["not base64!", "é", base64.b64encode(b"not zlib").decode(), "", 5],
)
def test_damaged_text_is_an_error(text):
    with pytest.raises(GraphScaleError, match=r"target network is damaged.*grow with --target"):
        restore(text)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"\x08\x08"])
def test_text_of_something_else_is_an_error(content):
    text = base64.b64encode(zlib.compress(content)).decode()
    with pytest.raises(GraphScaleError, match=r"target network is damaged.*grow with --target"):
        restore(text)


def test_a_damaged_graph_is_one_error(caplog):
    proto = ir.to_proto(load_model(classic(17)))
    proto.graph.node[2].input[0] = "nothing"  # onnx-ir would log it
    tensor = proto.graph.initializer[0]
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="unknown")  # onnx would warn of it
    text = base64.b64encode(zlib.compress(proto.SerializeToString())).decode()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(GraphScaleError, match="nothing computes the value 'nothing'"):
            restore(text)
    assert not caplog.records


def test_a_text_that_swells_without_end_is_refused():
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    packed = b"".join([packer.compress(zeros) for _ in range(1024)] + [packer.flush()])
    with pytest.raises(GraphScaleError, match=r"larger than.*grow with --target"):
        restore(base64.b64encode(packed).decode())
