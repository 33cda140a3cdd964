"""detach and attach against protobuf's own parser."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphscale.core import wire
from tests.zoo.handmade import classic, constant_nodes, float16

PLACE = "#here"
LIGHT_MODELS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))


def weight(name: str, *shape: int) -> TensorProto:
    array = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def nested() -> onnx.ModelProto:
    """Large tensors in a subgraph, a function, a list of tensors, a sparse one, with metadata."""
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [600])],
        [weight("inner", 600)],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weight("c", 20, 30)),
        helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node(
            "Custom", ["z"], ["u"], domain="d", tensors=[weight("a", 400), weight("b", 3)]
        ),
        helper.make_node("Scaled", ["u"], ["v"], domain="d"),
    ]
    function = helper.make_function(
        "d",
        "Scaled",
        ["i"],
        ["o"],
        [
            helper.make_node("Constant", [], ["k"], value=weight("k", 500)),
            helper.make_node("Mul", ["i", "k"], ["o"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    sparse = helper.make_sparse_tensor(
        weight("values", 300), numpy_helper.from_array(np.arange(300), "indices"), [1000]
    )
    graph = helper.make_graph(
        nodes,
        "nested",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [600])],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [600])],
        [weight("w", 32, 32), weight("small", 2)],
        sparse_initializer=[sparse],
    )
    model = helper.make_model(graph, functions=[function])
    helper.set_model_props(model, {"note": "é" * 2000})
    return model


def typed_fields() -> onnx.ModelProto:
    """Weights in float_data and int64_data rather than raw bytes: nothing to detach."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "typed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [600])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [600])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [600], np.arange(600.0)),
            helper.make_tensor("n", TensorProto.INT64, [600], np.arange(600)),
        ],
    )
    return helper.make_model(graph)


def tensors(message, found: list | None = None) -> list[TensorProto]:
    """Every TensorProto in a message, wherever it stands, found by protobuf's reflection."""
    found = [] if found is None else found
    if isinstance(message, TensorProto):
        found.append(message)
        return found
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in (
                value if isinstance(value, (list, tuple)) or hasattr(value, "add") else [value]
            ):
                tensors(each, found)
    return found


MODELS = {
    "classic": lambda: classic(17),
    "constants": lambda: constant_nodes(classic(17)),
    "float16": lambda: float16(classic(17)),
    "nested": nested,
    "typed": typed_fields,
    "empty": onnx.ModelProto,
    **{path.stem: (lambda path=path: onnx.load(path)) for path in LIGHT_MODELS},
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@EVERY_MODEL
def test_detached_tensors_stand_where_the_reference_says(name: str) -> None:
    model = MODELS[name]()
    data = model.SerializeToString()
    skeleton = onnx.ModelProto.FromString(wire.detach(memoryview(data), PLACE))
    for before, after in zip(tensors(model), tensors(skeleton), strict=True):
        assert (before.name, before.dims, before.data_type) == (
            after.name,
            after.dims,
            after.data_type,
        )
        if after.data_location != TensorProto.EXTERNAL:
            assert after == before
            continue
        assert len(before.raw_data) >= 1024
        entries = {entry.key: entry.value for entry in after.external_data}
        offset, length = int(entries["offset"]), int(entries["length"])
        assert entries["location"] == PLACE
        assert data[offset : offset + length] == before.raw_data


@EVERY_MODEL
def test_attaching_what_was_detached_gives_the_model(name: str) -> None:
    model = MODELS[name]()
    data = model.SerializeToString()
    skeleton = onnx.ModelProto.FromString(wire.detach(memoryview(data), PLACE))
    contents = []
    for tensor in tensors(skeleton):
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry for entry in tensor.external_data}
            start, size = int(entries["offset"].value), int(entries["length"].value)
            entries["offset"].value = str(len(contents))
            contents.append(data[start : start + size])
    sizes = [len(each) for each in contents]
    pieces = wire.attach(skeleton.SerializeToString(), PLACE, sizes)
    written = b"".join(contents[each] if isinstance(each, int) else bytes(each) for each in pieces)
    assert wire.size_of(pieces, sizes) == len(written)
    assert onnx.ModelProto.FromString(written) == model


def test_large_tensors_of_nodes_and_functions_are_detached() -> None:
    data = nested().SerializeToString()
    skeleton = onnx.ModelProto.FromString(wire.detach(memoryview(data), PLACE))
    away = {t.name for t in tensors(skeleton) if t.data_location == TensorProto.EXTERNAL}
    assert away >= {"w", "c", "k", "a", "inner"}


def test_references_to_other_files_are_left_alone() -> None:
    model = classic(17)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "other.bin", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    data = model.SerializeToString()
    assert (
        onnx.ModelProto.FromString(b"".join(bytes(piece) for piece in wire.attach(data, PLACE, [])))
        == model
    )


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_an_error_or_what_protobuf_reads(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(classic(17).SerializeToString())
    for _ in range(3):
        data[random.integers(3000)] = random.integers(256)
    data = bytes(data[: len(data) - random.integers(3)])
    try:
        expected = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's implementations raise errors of their own
        expected = None
    try:
        skeleton = onnx.ModelProto.FromString(wire.detach(memoryview(data), PLACE))
    except Exception:
        skeleton = None
    if expected is None:
        assert skeleton is None
    elif skeleton is not None:
        names = [tensor.name for tensor in tensors(expected)]
        assert [tensor.name for tensor in tensors(skeleton)] == names


def test_messages_nested_without_end_are_an_error() -> None:
    """A graph in an attribute of a node of a graph …, 400 times: protobuf itself reads 100."""
    inner = b""
    for number in [7, *[1, 5, 6] * 400][::-1]:
        length, head = len(inner), bytearray()
        while length >= 0x80:
            head.append(length & 0x7F | 0x80)
            length >>= 7
        head.append(length)
        inner = bytes([number << 3 | 2]) + bytes(head) + inner
    with pytest.raises(wire.WireError, match="more than 100 deep"):
        wire.detach(memoryview(inner), PLACE)
